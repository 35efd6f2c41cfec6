"""Weights in safetensors: what goes in comes out, and nothing less is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from models.checkpoints.checkpoint import load_generator, weights_digest
from models.checkpoints.shipped_weights import (
    FOLDER,
    read_weights,
    shipped_weights,
    write_weights,
)
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator
from util.errors import UserError

FACTS: dict[str, Any] = {
    "windows": WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(2500, 12250)).as_dict(),
    "training": "phantom patients 101 to 108",
    "dataset_mode": "unpaired",
    "step": 12,
    "commit": "abc",
    "licence": "BSD-3-Clause",
}


def generator() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(1, 4, 1, "none", "cubic").eval()


def test_a_generator_comes_back_with_its_facts(tmp_path: Path) -> None:
    path = tmp_path / "sr_x2.safetensors"
    network = generator()
    write_weights(path, network, FACTS)
    loaded = load_generator(path)
    assert loaded.generator.architecture == network.architecture
    assert loaded.digest == weights_digest(network)
    assert loaded.windows == FACTS["windows"]
    assert (loaded.step, loaded.options) == (12, {"dataset_mode": "unpaired"})
    assert not loaded.generator.training
    values = torch.rand(1, 1, 9, 8) * 2 - 1
    assert torch.equal(loaded.generator(values), network(values))
    assert read_weights(path)[1]["training"] == FACTS["training"]
    enlarged = SuperResolver.from_checkpoint(path, "cpu").upscale(np.full((1, 8, 8), -800.0))
    assert enlarged.shape == (1, 16, 16)


def test_a_place_that_cannot_be_written_is_told() -> None:
    with pytest.raises(UserError, match=r"cannot write /proc/x\.safetensors"):
        write_weights(Path("/proc/x.safetensors"), generator(), FACTS)


def test_facts_must_be_complete(tmp_path: Path) -> None:
    partial = {name: value for name, value in FACTS.items() if name != "licence"}
    with pytest.raises(ValueError, match="facts lack licence"):
        write_weights(tmp_path / "a.safetensors", generator(), partial)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "windows", [{"clinical": {"low": 0, "high": 1}}, 5, {"clinical": 1, "micro": 2}, {}]
)
def test_windows_that_are_none_are_refused(tmp_path: Path, windows: Any) -> None:
    path = tmp_path / "a.safetensors"
    write_weights(path, generator(), {**FACTS, "windows": windows})
    with pytest.raises(UserError, match="does not say what its weights are"):
        read_weights(path)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sr_x2.safetensors"
    with pytest.raises(UserError, match=r"no weights .*: give the path"):
        load_generator(path)
    save_file({"a": torch.zeros(2)}, str(path))
    with pytest.raises(UserError, match="does not say what its weights are"):
        load_generator(path)
    write_weights(path, generator(), FACTS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_generator(path)
    write_weights(path, generator(), FACTS)
    other = SRGenerator(1, 4, 2, "none", "cubic")
    path.write_bytes(path.read_bytes().replace(b'\\"blocks\\": 1', b'\\"blocks\\": 2'))
    assert other.architecture["blocks"] == 2
    with pytest.raises(UserError, match="not those of the network it names"):
        load_generator(path)


def test_files_are_found_by_scale(tmp_path: Path) -> None:
    assert shipped_weights(8, tmp_path) is None
    write_weights(tmp_path / "sr_x8.safetensors", generator(), FACTS)
    assert shipped_weights(8, tmp_path) == tmp_path / "sr_x8.safetensors"
    assert shipped_weights(4, tmp_path) is None


OURS = sorted(FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_the_projects_own_weights_load_and_say_where_they_come_from(path: Path) -> None:
    loaded = load_generator(path)
    assert path.stem.rpartition("_")[2] == f"x{loaded.generator.scale}"
    assert path.stat().st_size < 5e6
    facts = read_weights(path)[1]
    assert all(facts[name] for name in ("training", "licence", "commit", "step"))


# Instance norm takes mean and contrast away, and its training showed no such edge.
@pytest.mark.parametrize(
    "path", [path for path in OURS if "cyclegan" not in path.name], ids=lambda path: path.name
)
def test_the_projects_own_weights_leave_an_edge_in_its_place_and_even_tissue_what_it_is(
    path: Path,
) -> None:
    step = np.full((1, 24, 64), -900.0)
    step[:, :, 32:] = 40
    enlarged = SuperResolver.from_checkpoint(path, "cpu").upscale(step)[0]
    columns = enlarged.reshape(len(enlarged), 64, -1).mean(axis=(0, 2))
    # Near the edge, what no scanner shows rings.
    assert columns[8:20].mean() == pytest.approx(-900, abs=25)
    assert columns[44:56].mean() == pytest.approx(40, abs=25)
    assert columns[31] < -430 < columns[33]
