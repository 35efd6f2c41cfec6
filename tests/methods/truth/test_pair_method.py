"""pairtest from the command line to its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from method_helpers import save_generator

import methods.truth.pair_method
from data.writing.nifti_writer import write_volume
from medicaltest import main
from methods.truth.report import output_names
from models.networks import SRGenerator
from util.errors import run_command_line

LOW_AFFINE = np.diag([0.5, 0.5, 1.0, 1.0])
# Half a fine pixel before the middle of the first clinical one.
FINE_AFFINE = np.array([[0.25, 0, 0, -0.125], [0, 0.25, 0, -0.125], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    truth = generator.normal(-850, 60, (2, 48, 48)).round().astype(np.int16)
    low = truth.reshape(2, 24, 2, 24, 2).mean((2, 4)).round().astype(np.int16)
    write_volume(tmp_path / "in" / "lung.nii", low, LOW_AFFINE)
    write_volume(tmp_path / "truth" / "fine.nii", truth, FINE_AFFINE)
    network = SRGenerator(1, 4, 1, "none", "cubic")
    save_generator(tmp_path / "model" / "latest.pt", network)
    return tmp_path


@pytest.fixture(autouse=True)
def no_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their patients would have to be made."""
    monkeypatch.setattr(methods.truth.pair_method, "linear_methods", lambda template, known: [])


def run(pair: Path, *words: str) -> int:
    command = ["--method", "pairtest", "--gpu_ids", "-1", "--region", "all", "--page_mb", "0"]
    command += ["--checkpoint", str(pair / "model" / "latest.pt"), "--results_dir", str(pair / "r")]
    return run_command_line(main, [*command, *words])


def test_a_pair_is_scored_by_the_measures_that_need_no_labels(pair: Path) -> None:
    words = ("--input", str(pair / "in"), "--truth", str(pair / "truth"))
    assert run(pair, *words) == 0
    names = output_names("pair", scanners=False)
    assert {path.name for path in (pair / "r").iterdir()} == {*names, "pair_run.json"}
    told = json.loads((pair / "r" / "pair_scores.json").read_text())
    assert list(told["all"]) == ["nearest", "linear", "cubic", "cubic, unsharp mask", "SR"]
    cubic = told["all"]["cubic"]
    for name in ("psnr", "ssim", "mae", "resolution", "spectrum", "consistency", "flip"):
        assert isinstance(cubic[name]["mean"], float), name
    assert cubic["vessels_f1"]["mean"] in ("nan", None)
    assert "vessels" not in (pair / "r" / "index.html").read_text()


def test_what_is_no_pair_is_refused(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low, fine = str(pair / "in" / "lung.nii"), str(pair / "truth" / "fine.nii")
    with pytest.raises(SystemExit) as stop:
        run(pair, "--input", low)
    assert stop.value.code == 2
    assert "give --input and --truth" in capsys.readouterr().err
    assert run(pair, "--input", low, "--truth", fine, low) == 2
    assert "--input names 1 volumes and --truth 2" in capsys.readouterr().err
    assert run(pair, "--input", low, "--truth", low) == 2
    assert "has 24x24x2 voxels, expected 48x48x2" in capsys.readouterr().err
    moved = FINE_AFFINE.copy()
    moved[0, 3] += 3
    write_volume(pair / "moved.nii", np.zeros((2, 48, 48), np.int16), moved)
    assert run(pair, "--input", low, "--truth", str(pair / "moved.nii")) == 2
    assert "lies up to 3 mm from where" in capsys.readouterr().err
    write_volume(pair / "thin.nii", np.zeros((2, 24, 1), np.int16), LOW_AFFINE)
    write_volume(pair / "thin_fine.nii", np.zeros((2, 48, 2), np.int16), FINE_AFFINE)
    assert run(pair, "--input", str(pair / "thin.nii"), "--truth", str(pair / "thin_fine.nii")) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: SSIM got ")
    assert f"{pair / 'thin_fine.nii'} of shape (48, 2) and needs" in err
    assert not (pair / "r").exists()


def test_two_pairs_of_one_name_are_refused(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low, fine = str(pair / "in" / "lung.nii"), str(pair / "truth" / "fine.nii")
    (pair / "other").mkdir()
    (pair / "other" / "lung.nii").write_bytes((pair / "in" / "lung.nii").read_bytes())
    (pair / "other" / "fine.nii").write_bytes((pair / "truth" / "fine.nii").read_bytes())
    words = ["--input", low, str(pair / "other" / "lung.nii")]
    words += ["--truth", fine, str(pair / "other" / "fine.nii")]
    assert run(pair, *words) == 2
    # On a line of its own, not behind the bar.
    (line,) = [line for line in capsys.readouterr().err.split("\n") if "error:" in line]
    assert line.startswith("error: two cases are called lung")


def test_a_truth_of_one_value_is_refused_by_name_before_the_work(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = np.full((2, 48, 48), -800, np.int16)
    write_volume(pair / "flat.nii", truth, FINE_AFFINE)
    low = str(pair / "in" / "lung.nii")
    assert run(pair, "--input", low, "--truth", str(pair / "flat.nii")) == 2
    assert "error: lung shows no lung beside other" in capsys.readouterr().err


def test_a_pair_too_large_for_memory_is_refused_before_the_work(
    pair: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(methods.truth.pair_method, "free_memory", lambda device: 100_000)
    words = ("--input", str(pair / "in"), "--truth", str(pair / "truth"))
    assert run(pair, *words) == 2
    assert "give fewer slices, such as --slices" in capsys.readouterr().err
    monkeypatch.setattr(methods.truth.pair_method, "free_memory", lambda device: 150_000)
    assert run(pair, *words, "--slices", "0:1") == 0


def test_slices_without_lung_are_interpolated_by_models_with_norms(pair: Path) -> None:
    mask = np.zeros((2, 24, 24), np.uint8)
    mask[0, 2:22, 2:22] = 1
    write_volume(pair / "in" / "lung_mask.nii.gz", mask, LOW_AFFINE)
    network = SRGenerator(1, 4, 1, "instance", "none")
    path = pair / "norm" / "latest.pt"
    save_generator(path, network)
    words = ["--input", str(pair / "in" / "lung.nii"), "--truth", str(pair / "truth")]
    command = ["--method", "pairtest", "--gpu_ids", "-1", "--checkpoint", str(path), "--page_mb"]
    command += ["0", "--results_dir", str(pair / "r"), *words]
    assert run_command_line(main, command) == 0
