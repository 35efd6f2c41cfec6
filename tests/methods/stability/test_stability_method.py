"""stabilitytest from the command line to its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from method_helpers import save_generator
from PIL import Image

from data.writing.nifti_writer import write_volume
from medicaltest import main
from methods.stability.method import OUTPUTS, RECORD
from methods.trust_report import CALM
from models.networks import SRGenerator
from util.errors import run_command_line

EDGE = 24


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A model that is nothing but cubic interpolation, and a CT with lung in all slices but one."""
    network = SRGenerator(1, 4, 1, "none", "cubic")
    for parameter in network.parameters():
        parameter.data.zero_()
    save_generator(tmp_path / "model" / "latest.pt", network)
    generator = np.random.default_rng(0)
    voxels = generator.normal(-850, 40, (4, EDGE, EDGE)).round().astype(np.int16)
    voxels[2] *= 2  # the worst: noise of twice the size
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    write_volume(tmp_path / "ct.nii", voxels, affine)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[:, 4:20, 4:20] = 1
    mask[1] = 0
    write_volume(tmp_path / "masks" / "ct_mask.nii.gz", mask, affine)
    return tmp_path


def run(case: Path, *words: str) -> int:
    command = ["--method", "stabilitytest", "--gpu_ids", "-1", "--input", str(case / "ct.nii")]
    command += ["--maskdatafolder", str(case / "masks"), "--results_dir", str(case / "r")]
    command += ["--checkpoint", str(case / "model" / "latest.pt")]
    return run_command_line(main, [*command, *words])


def test_every_slice_with_lung_is_measured(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(case) == 0
    folder = case / "r"
    assert {path.name for path in folder.iterdir()} == {*OUTPUTS, RECORD, "index.html"}
    with (folder / "stability_slices.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slice"] for row in rows] == ["0", "2", "3"]  # slice 1 has no lung
    for row in rows:
        # Interpolation has no side that it prefers, and hands less noise on than it gets.
        assert float(row["flip_hu"]) < 0.01
        assert 0.5 < float(row["noise_gain"]) < 1
        assert row["word"] == "calm"
    record = json.loads((folder / RECORD).read_text())
    assert record["words"] == {"calm": 3, "careful": 0, "do not trust": 0}
    assert record["figures"]["noise_gain"]["highest"] == max(float(r["noise_gain"]) for r in rows)
    said = capsys.readouterr().out
    assert f": {record['in_words']}" in said
    assert record["in_words"].startswith("3 of 3 slices calm, flip 0.0 HU (at most 0.0)")
    page = (folder / "index.html").read_text()
    assert record["in_words"] in page
    assert "every slice" in page
    for name in ("curves", "preview"):
        with Image.open(folder / f"stability_{name}.png") as picture:
            assert min(picture.size) > 300


def test_a_network_that_prefers_a_side_is_told_so(case: Path) -> None:
    path = case / "model" / "latest.pt"
    torch.manual_seed(0)
    network = SRGenerator(1, 4, 1, "none", "none")  # random weights, no skip
    save_generator(path, network)
    assert run(case, "--page_mb", "0") == 0
    record = json.loads((case / "r" / RECORD).read_text())
    assert record["figures"]["flip_hu"]["mean"] > CALM["flip_hu"]
    assert record["words"]["do not trust"] > 0
    assert not (case / "r" / "index.html").exists()


def test_no_lung_is_one_line_and_nothing_is_left(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(case, "--slices", "1:2") == 2
    assert "no slice has 64 pixels of lung" in capsys.readouterr().err
    assert not list((case / "r").glob("*"))


def test_results_that_are_there_are_kept(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(case, "--page_mb", "0", "--slices", "3:4") == 0
    record = json.loads((case / "r" / RECORD).read_text())
    assert record["worst_slice"] == 3  # of the file
    assert run(case) == 2
    assert "exists already: --overwrite replaces it" in capsys.readouterr().err


def test_over_several_cases_the_overview_has_their_words(case: Path) -> None:
    other = np.random.default_rng(1).normal(-850, 40, (1, EDGE, EDGE)).astype(np.int16)
    write_volume(case / "other.nii", other, np.diag([0.5, 0.5, 1.0, 1.0]))
    words = ["--region", "all", "--input", str(case / "ct.nii"), str(case / "other.nii")]
    command = ["--method", "stabilitytest", "--gpu_ids", "-1", "--results_dir", str(case / "r")]
    command += ["--checkpoint", str(case / "model" / "latest.pt")]
    assert run_command_line(main, [*command, *words]) == 0
    overview = (case / "r" / "index.html").read_text()
    assert "1 of 1 slices calm" in overview
    assert "4 of 4 slices calm" in overview
