"""One patient in both scanners, with the truth."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data.phantom import __main__ as phantom
from data.phantom.anatomy.disease import DISEASES
from data.phantom.case import read_case
from data.phantom.pair import FILES, MICRO, PairPlan, fitting_micro, write_pair
from data.phantom.scanners import ClinicalScanner, MicroScanner
from data.truth_case import LABELS
from util.errors import UserError, run_command_line

QUIET = ClinicalScanner(profile=0, kernel="none", noise=0)
PLAN = PairPlan(3, DISEASES["solid_nodule"], size=(20, 16, 2), clinical=QUIET)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("pair") / "seed3", PLAN)


def read(folder: Path, name: str) -> np.ndarray:
    """(z, y, x)."""
    return np.asarray(nib.Nifti1Image.from_filename(folder / name).dataobj).T


@pytest.mark.slow
def test_all_volumes_show_the_same_field_on_the_promised_grids(pair: Path) -> None:
    assert sorted(path.name for path in pair.iterdir()) == sorted([*FILES, MICRO, "phantom.json"])
    clinical = nib.Nifti1Image.from_filename(pair / "clinical.nii")
    assert clinical.shape == (20, 16, 2)
    assert clinical.header.get_zooms() == pytest.approx((0.5, 0.5, 0.5))
    corner = clinical.affine @ (-0.5, -0.5, -0.5, 1)
    for name in ("micro.nii", "truth.nii", "thin.nii", "labels.nii.gz"):
        image = nib.Nifti1Image.from_filename(pair / name)
        depth = 0.0625 if name == "micro.nii" else 0.5
        assert image.shape == (160, 128, round(1 / depth))
        assert image.header.get_zooms() == pytest.approx((0.0625, 0.0625, depth))
        np.testing.assert_allclose(image.affine @ (-0.5, -0.5, -0.5, 1), corner, atol=1e-5)
    mask = nib.Nifti1Image.from_filename(pair / "clinical_mask.nii.gz")
    np.testing.assert_allclose(mask.affine, clinical.affine)


def test_a_scanner_without_blur_and_noise_sees_the_area_average_of_the_truth(pair: Path) -> None:
    truth = read(pair, "truth.nii").astype(float)
    average = truth.reshape(2, 16, 8, 20, 8).mean(axis=(2, 4))
    difference = read(pair, "clinical.nii") - average
    assert average.std() > 200
    assert np.abs(difference).max() <= 1  # rounding: they are made of the same samples
    assert abs(difference.mean()) < 0.1


def test_micro_is_the_truth_in_scanner_units_with_blur_and_noise(pair: Path) -> None:
    truth, thin = read(pair, "truth.nii").astype(float), read(pair, "thin.nii").astype(float)
    scanner = MicroScanner()
    micro = read(pair, "micro.nii").astype(float)
    hounsfield = (micro - scanner.air) / (scanner.water - scanner.air) * 1000 - 1000
    slabs = hounsfield.reshape(2, 8, 128, 160)
    assert np.corrcoef(truth.ravel(), slabs.mean(axis=1).ravel())[0, 1] > 0.95
    assert (slabs.mean(axis=1) - truth).mean() == pytest.approx(0, abs=3)
    noise = slabs[:, 4] - thin
    assert np.corrcoef(thin.ravel(), slabs[:, 4].ravel())[0, 1] > 0.9
    assert noise.std() == pytest.approx(scanner.noise / 6.5, rel=0.4)  # and the blur
    assert thin.std() > truth.std()


def test_labels_follow_the_truth(pair: Path) -> None:
    truth, labels = read(pair, "truth.nii"), read(pair, "labels.nii.gz")
    told = json.loads((pair / "phantom.json").read_text())
    assert told["labels"] == LABELS
    assert truth[labels == LABELS["nodule"]].mean() > -40
    assert truth[labels == LABELS["parenchyma"]].mean() < -750
    assert (labels == LABELS["nodule"]).mean() > 0.1


def test_the_same_plan_is_not_made_twice_and_another_is_refused(pair: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in pair.iterdir()}
    assert write_pair(pair, PLAN) == pair
    assert {path.name: path.stat().st_mtime_ns for path in pair.iterdir()} == before
    with pytest.raises(UserError, match="holds the phantom of seed 3 with other parameters"):
        write_pair(pair, PairPlan(4))


@pytest.mark.slow
def test_what_a_stop_left_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PairPlan(3, size=(6, 5, 1), clinical=QUIET)
    whole = write_pair(tmp_path / "whole", plan)

    def stop(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data.phantom.pair.write_volume", stop)
        with pytest.raises(KeyboardInterrupt):
            write_pair(tmp_path / "stopped", plan)
    assert not (tmp_path / "stopped" / "truth.nii").exists()
    write_pair(tmp_path / "stopped", plan)
    for name in plan.files:
        assert (tmp_path / "stopped" / name).read_bytes() == (whole / name).read_bytes()


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "truth.nii").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"already holds truth\.nii: give another --out"):
        write_pair(tmp_path, PLAN)
    assert (tmp_path / "truth.nii").read_bytes() == b"mine"


def test_a_field_larger_than_the_lung_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit in the phantom's lung"):
        write_pair(tmp_path / "new", PairPlan(3, size=(400, 8, 1)))
    assert not (tmp_path / "new").exists()


def test_the_micro_ct_fits_the_clinical_grid() -> None:
    plan = PairPlan(1, scale=4, size=(4, 4, 3), clinical=ClinicalScanner(0.8, 1.25))
    assert plan.micro_scanner.spacing == pytest.approx((0.2, 0.2, 1.25 / 6))
    assert plan.micro_scanner.psf_fwhm == pytest.approx(0.192)
    assert plan.micro_size == (16, 16, 18)
    cubes = fitting_micro(ClinicalScanner(0.7, 1.4), 8)
    assert cubes.depth is None


def test_the_micro_ct_may_be_left_out(tmp_path: Path) -> None:
    plan = PairPlan(3, size=(6, 5, 1), clinical=QUIET, with_micro=False)
    write_pair(tmp_path / "p", plan)
    assert not (tmp_path / "p" / MICRO).exists()
    assert sorted(plan.files) == sorted(FILES)


def test_what_version_2_made_is_refused_by_name(pair: Path, tmp_path: Path) -> None:
    told = json.loads((pair / "phantom.json").read_text())
    told["plan"] = {key: value for key, value in told["plan"].items() if key != "with_micro"}
    told["plan"]["version"] = 2
    (tmp_path / "phantom.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="holds a phantom of version 2, this is version 3"):
        write_pair(tmp_path, PLAN)
    with pytest.raises(UserError, match="holds a phantom of version 2, this is version 3"):
        read_case(tmp_path)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", str(tmp_path / "p"), "--seed", "4", "--size", "6", "5", "1"]
    words += ["--disease", "emphysema", "--scale", "2", "--processes", "1"]
    assert run_command_line(phantom.main, words) == 0
    assert "emphysema phantom, seed 4, in " in capsys.readouterr().out
    assert read(tmp_path / "p", "truth.nii").shape == (1, 10, 12)
