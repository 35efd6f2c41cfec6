"""What a run starts from, and what it says about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lock_helpers import another_owner
from training_helpers import TINY_RUN, write_training_data

import train
import training.setup
from data.writing.nifti_writer import write_volume
from models.networks import SRGenerator
from util.errors import run_command_line

pytestmark = pytest.mark.usefixtures("undrawn_curves")


@pytest.mark.parametrize(
    ("preset", "other"),
    [("demo", "adapt"), ("adapt", "paper"), ("paper", "demo")],
)
def test_the_preset_line_names_the_one_that_is_asked_for_next(preset: str, other: str) -> None:
    options = train.TrainOptions().parse(["--preset", preset], lambda: 0)[0]
    line = training.setup.preset_line(options, "cuda")
    start = "random weights" if preset == "paper" else options.init_weights
    assert line.startswith(f"preset {preset} on cuda, from {start} (another: --preset {other}, ")


@pytest.mark.slow
def test_weights_that_know_tissue_by_other_values_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY_RUN, *write_training_data(tmp_path / "volumes"), "--no_html"]
    assert train.main([*words, "--name", "first"]) == 0
    again = [*words, "--niter", "1", "--niter_decay", "0"]
    again += [
        "--init_weights",
        "checkpoints/first/latest.pt",
        "--norm",
        "instance",
        "--skip",
        "none",
    ]
    capsys.readouterr()
    assert train.main([*again, "--name", "same"]) == 0
    assert "warning: the weights" not in capsys.readouterr().out
    assert train.main([*again, "--name", "other", "--windows", "clinical=-1024:600"]) == 0
    told = "were made for clinical CT in -1000:500 HU, got -1024:600 HU"
    assert told in capsys.readouterr().out


@pytest.mark.slow
def test_a_teacher_of_another_scale_is_refused_and_one_that_fits_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY_RUN, *write_training_data(tmp_path / "volumes"), "--no_html"]
    words += ["--lambda_pair", "1", "--name", "small"]
    weights = Path(train.__file__).parent / "weights" / "sr_x8.safetensors"
    assert run_command_line(train.main, [*words, "--teacher", str(weights)]) == 2
    assert "enlarges 8 times, expected 2 times" in capsys.readouterr().err
    torch.save(SRGenerator(1, 8, 1).state_dict(), tmp_path / "teacher.pth")
    words += ["--niter", "1", "--niter_decay", "0", "--teacher", "teacher.pth"]
    assert train.main(words) == 0
    again = ["--gpu_ids", "-1", "--name", "small", "--continue_train", "--niter", "2"]
    (tmp_path / "teacher.pth").unlink()
    assert run_command_line(train.main, again) == 2
    assert "no checkpoint teacher.pth" in capsys.readouterr().err


def test_a_second_training_of_one_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY_RUN, *write_training_data(tmp_path / "volumes"), "--no_html", "--name", "run"]
    with another_owner(tmp_path / "checkpoints" / "run") as owner:
        assert run_command_line(train.main, words) == 2
        told = capsys.readouterr().err
        assert f"checkpoints/run is in use by process {owner.pid} on " in told
        assert told.endswith(": wait for its end, or train another with --name NAME\n")
        assert [path.name for path in Path("checkpoints/run").iterdir()] == [".lock"]
        owner.communicate("")
    assert train.main(words) == 0
    assert not Path("checkpoints/run/.lock").exists()


def vessels(seed: int) -> np.ndarray:
    """Blocks of tissue in lung, (8, 90, 90) in HU."""
    generator = np.random.default_rng(seed)
    small = np.where(generator.random((8, 30, 30)) < 0.05, 40.0, -870.0)
    texture = generator.normal(0, 25, (8, 90, 90))
    return small.repeat(3, axis=1).repeat(3, axis=2) + texture


@pytest.mark.slow
def test_a_run_around_the_scanner_that_was_found_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ct, fine = np.diag([0.6, 0.6, 0.6, 1.0]), np.diag([0.3, 0.3, 0.6, 1.0])
    voxels = np.rint(vessels(1)).astype(np.int16)
    write_volume(Path("ct.nii"), voxels, ct)
    write_volume(Path("ct_mask.nii.gz"), np.ones(voxels.shape, np.uint8), ct)
    micro = vessels(2).repeat(2, axis=1).repeat(2, axis=2)
    write_volume(Path("micro.nii"), np.rint(micro).astype(np.int16), fine)
    words = [*TINY_RUN, "--all_clinical_paths", "ct.nii", "--all_micro_paths", "micro.nii"]
    words += [
        "--windows",
        "micro=-1000:500",
        "--scanner",
        "auto",
        "--lambda_pair",
        "1",
        "--no_html",
    ]
    assert run_command_line(train.main, [*words, "--name", "found"]) == 0
    said = capsys.readouterr().out
    assert "scanner of the clinical CT: a point spread of " in said
    kept = kept_scanner()
    assert kept["scanner"] == "auto"
    assert kept["scanner_pixel"] == pytest.approx([0.9, 1.1])
    again = ["--continue_train", "--name", "found", "--niter", "3"]
    assert run_command_line(train.main, again) == 0
    assert kept_scanner() == kept
    assert "scanner of the clinical CT" not in capsys.readouterr().out


def kept_scanner() -> dict[str, object]:
    """The options of the scanner that the run called found keeps."""
    kept = json.loads(Path("checkpoints/found/options.json").read_text())
    return {name: value for name, value in kept.items() if name.startswith("scanner")}


def test_volumes_that_show_no_scanner_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY_RUN, *write_training_data(tmp_path / "volumes"), "--scanner", "auto"]
    assert run_command_line(train.main, [*words, "--name", "small"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert (
        "of clinical lung, expected 20 at least: give larger volumes, or --scanner random" in told
    )
    assert not list(Path("checkpoints").rglob("*.pt"))
