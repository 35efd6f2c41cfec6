"""Comparisons of two training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.checkpoints.checkpoint import load_checkpoint


def assert_same(first: Any, second: Any, place: str) -> None:
    """Equal in every number and bit, at any depth."""
    assert type(first) is type(second), place
    if isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            assert_same(first[key], second[key], f"{place}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), place
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{place}/{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    else:
        assert first == second, place


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimisers, schedulers, pools, random states, position and the CSV are equal."""
    states = [load_checkpoint(folder / "latest.pt") for folder in (first, second)]
    for state in states:
        del state["options"]  # the name and --continue_train differ
    assert_same(states[0], states[1], "checkpoint")
    assert (first / "loss_log.csv").read_bytes() == (second / "loss_log.csv").read_bytes()
