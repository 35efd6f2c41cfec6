"""--dry_run and --list tell what there is and what would be done, and leave nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from method_helpers import affines, soft_volume, write_ct
from training_helpers import TINY_RUN, write_checkpoint

import medicaltest
import train
from data.phantom.training_set import default_plan
from data.writing.nifti_writer import write_volume
from options.presets import CHOICES, DATASETS, METHODS, MODELS, PRESET_NOTES, PRESETS
from options.test_options import METHODS as METHOD_NAMES
from training.dry_run import PHANTOM_PATIENTS
from util.errors import EXIT_USER_ERROR, run_command_line


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run where nothing is yet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], program: object, *words: str) -> str:
    capsys.readouterr()
    main = program.main  # type: ignore[attr-defined]
    assert run_command_line(main, ["--dry_run", "--gpu_ids", "-1", *words]) == 0
    return capsys.readouterr().out


def test_training_tells_its_size_and_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in (("ct", "a"), ("ct", "b"), ("micro", "m")):
        write_ct(tmp_path / folder / f"{name}.nii", soft_volume((40, 40, 2)), affines()["lps"])
    before = sorted(tmp_path.rglob("*"))
    words = [*TINY_RUN, "--clinical_folder", "ct", "--micro_folder", "micro", "--batch_num", "10"]
    text = told(capsys, train, *words, "--batch_size", "4", "--name", "new")
    assert "experiment  checkpoints/new, new" in text
    assert re.search(r"clinical CT  2 volumes, \d+\.\d kB: a 40x40x2, b 40x40x2", text)
    assert re.search(r"micro-CT  1 volumes", text)
    assert re.search(r"time  \d+\.\d\d s a step, measured; an epoch of 20 patches is 5 steps", text)
    assert sorted(tmp_path.rglob("*")) == before


def test_training_without_data_tells_of_the_phantom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints" / "old").mkdir(parents=True)
    (tmp_path / "checkpoints" / "old" / "latest.pt").write_bytes(b"")
    text = told(capsys, train, *TINY_RUN, "--name", "old")
    assert "old holds a model already: --continue_train, --overwrite or another --name" in text
    assert "the digital lung phantom in datasets/phantom/x2 (would be made)" in text
    assert not (tmp_path / "datasets").exists()
    jobs = default_plan(2).jobs(tmp_path)
    assert sum(job.path.parent.name == "clinical" for job in jobs) == PHANTOM_PATIENTS


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A 2x model."""
    return str(write_checkpoint(tmp_path / "models", "run"))


@pytest.mark.slow
def test_testing_tells_sizes_and_what_is_in_the_way(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_ct(tmp_path / "ct" / f"{name}.nii", soft_volume((20, 30, 5)), affines()["lps"])
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "SR.nii.gz").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    words = ["--checkpoint", model, "--input", "ct", "--results_dir", "out", "--slices", "1:4"]
    text = told(capsys, medicaltest, *words)
    # 20 x 30 x 3 voxels and four times as many, two bytes each.
    files = "SR.nii.gz, clinical.nii.gz, preview.png, SR.itksnap, run.json, index.html"
    assert f"ct/a.nii: 20 x 30 x 3 voxels -> out/a: {files};" in text
    assert text.count("at most 18.0 kB") == 2
    assert text.count("exists already") == 1
    assert "2 cases: at most 36.0 kB before packing" in text
    assert sorted(tmp_path.rglob("*")) == before
    more = told(capsys, medicaltest, *words, "--uncertainty", "--output_format", "mha")
    assert more.count("at most 46.8 kB") == 2  # 3600 + 3 * 14400
    assert "SR.mha" in more


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), [("uint8", "1.8 kB"), ("float32", "7.2 kB")])
def test_an_evaluation_is_told_in_the_type_that_it_writes(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], dtype: str, size: str
) -> None:
    volume = np.zeros((2, 20, 20), dtype)
    write_volume(tmp_path / "m.nii", volume, np.diag([0.05, 0.05, 0.05, 1.0]), dtype=dtype)
    words = ["--checkpoint", model, "--input", "m.nii", "--method", "microCTsmallpatchtest"]
    text = told(capsys, medicaltest, *words, "--page_mb", "0")
    # Twice 20 x 20 x 2 voxels, and a quarter of them.
    assert f"at most {size}, about" in text
    for kind in ("HR.nii.gz", "LR.nii.gz", "SR.nii.gz", "scores.csv", "scores.json", "run.json"):
        assert f"micro_{kind}" in text
    assert "index.html" not in text


@pytest.mark.slow
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_can_be_asked(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    path = write_ct(tmp_path / "a.nii", soft_volume((20, 30, 2)), affines()["lps"])
    given = [] if method == "phantomtest" else ["--input", str(path)]
    given += ["--truth", str(path)] if method == "pairtest" else []
    before = sorted(tmp_path.rglob("*"))
    text = told(capsys, medicaltest, "--checkpoint", model, "--method", method, *given)
    assert "dry run: nothing is written but the cache of unpacked volumes" in text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_mask_that_would_be_refused_is_refused(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.ones((2, 30, 19))
    path = write_ct(tmp_path / "a.nii", soft_volume((20, 30, 2)), affines()["lps"], mask)
    words = ["--dry_run", "--checkpoint", model, "--input", str(path), "--region", "lung"]
    assert run_command_line(medicaltest.main, words) == EXIT_USER_ERROR
    assert "a_mask.nii.gz has size (19, 30, 2)" in capsys.readouterr().err


@pytest.mark.parametrize("program", [train, medicaltest])
def test_the_list_names_every_choice(program: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        program.main(["--list"])  # type: ignore[attr-defined]
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    for choices in CHOICES.values():
        for name, what in choices.items():
            assert re.search(rf"^  {name} +{re.escape(what)}$", text, re.M)


def test_the_list_is_complete() -> None:
    from data.datasets import DATASETS as REAL_DATASETS
    from methods.registry import TEST_METHODS
    from models.medical_cycle_gan import MODELS as REAL_MODELS

    assert set(MODELS) == set(REAL_MODELS)
    assert set(DATASETS) == set(REAL_DATASETS)
    assert set(METHODS) == set(TEST_METHODS)
    assert set(PRESET_NOTES) == {"auto", *PRESETS}
