"""Weights that come with the project: G_A alone, as safetensors, with all that a test needs.

A safetensors file holds tensors and text and cannot run code. The text says what the network is
built from, which intensities it takes, what it was trained on, and under which licence it comes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.networks import SRGenerator
from util.errors import UserError
from util.files import atomic_path
from util.images.intensity_window import IntensityWindow

FORMAT = "sr-cyclegan-weights"
SUFFIX = ".safetensors"
FOLDER = Path(__file__).resolve().parents[2] / "weights"
# What a file must say; all but the licence and the training are JSON.
FACTS = ("architecture", "windows", "training", "dataset_mode", "step", "commit", "licence")
SCANS = "scans"  # which scans the weights know; older files do not say
SPREAD = "spread"  # factor on the spread of draws of texture; files without texture do not say


def shipped_weights(scale: int, folder: Path = FOLDER) -> Path | None:
    """The file that comes with the project for an enlargement, if there is one."""
    path = folder / f"sr_x{scale}{SUFFIX}"
    return path if path.is_file() else None


def write_weights(path: Path, generator: SRGenerator, facts: Mapping[str, Any]) -> None:
    """Write G_A with its facts.

    Args:
        path: ends in .safetensors.
        generator: its weights are stored as they are.
        facts: windows (a dict), training (text: data, command, seed), dataset_mode, step, commit,
            licence; scans (see training/known_scans.py) and spread (see
            `models.inference.slice_resolver.SliceResolver`) if they are known.

    Raises:
        ValueError: a fact is missing.
    """
    told = {"architecture": generator.architecture, **facts}
    missing = [name for name in FACTS if name not in told]
    if missing:
        raise ValueError(f"facts lack {', '.join(missing)}")
    names = [*FACTS, *(name for name in (SCANS, SPREAD) if told.get(name) is not None)]
    metadata = {"format": FORMAT, **{name: json.dumps(told[name]) for name in names}}
    tensors = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    with atomic_path(path) as partial:
        try:
            save_file(tensors, str(partial), metadata)
        except SafetensorError as error:  # so it says that the system refused
            raise OSError(str(error)) from error


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file of `write_weights`.

    Raises:
        UserError: missing, damaged, or without the facts.
    """
    if not path.is_file():
        raise UserError(f"no weights {path}: give the path of a {SUFFIX} file or a checkpoint")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({error}): it may be cut off; get it anew"
        ) from error
    try:
        if metadata.get("format") != FORMAT:
            raise KeyError("format")
        facts = {name: json.loads(metadata[name]) for name in FACTS}
        facts |= {name: json.loads(metadata.get(name, "null")) for name in (SCANS, SPREAD)}
        _check_windows(facts["windows"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not say what its weights are ({error}): give a file of this project, or "
            "a checkpoint"
        ) from error
    return tensors, facts


def _check_windows(windows: dict[str, Any] | None) -> None:
    """Raises KeyError, TypeError or ValueError for windows that `write_weights` did not write."""
    if windows is not None:
        for name in ("clinical", "micro"):
            IntensityWindow.from_dict(windows[name])
        if not isinstance(windows["normalization"], str):
            raise TypeError("normalization")
