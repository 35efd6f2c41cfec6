"""Train and test on real CT and micro-CT, end to end; skipped where the volumes are absent."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import medicaltest
import train
from data.volumes.geometry import corners
from util.errors import UserError

pytestmark = [pytest.mark.shared, pytest.mark.slow]

# Narrow networks on the smallest patch the discriminators take: 300 steps in 40 seconds.
NARROW = (
    "--preset",
    "demo",
    "--from_scratch",
    "--scanner",
    "fixed",
    "--clinical_patch_size",
    "24",
    "--no_html",
    "--num_threads",
    "0",
)
STEPS_4X = 300


def load_nifti(path: Path) -> Any:
    """nibabel's image, whose stubs leave out most of what it has."""
    return load(path)


def load(path: Path) -> Any:
    return nib.load(path)


def run_training(folder: Path, *words: str) -> None:
    code = train.main([*NARROW, "--checkpoints_dir", str(folder / "checkpoints"), *words])
    assert code == 0


def run_test(folder: Path, results: str, *words: str) -> Path:
    target = folder / results
    common = ("--checkpoints_dir", str(folder / "checkpoints"), "--results_dir", str(target))
    assert medicaltest.main([*common, "--page_mb", "0", *words]) == 0
    return target


def total_scores(results: Path) -> dict[str, dict[str, float]]:
    total: dict[str, dict[str, float]] = json.loads(
        (results / "micro_scores.json").read_text(encoding="utf-8")
    )["total"]
    return total


@pytest.fixture(scope="module")
def trained_4x(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 4x model of 300 steps on LIDC-IDRI-0001 and bone, the last 40 slices of both held back."""
    data = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not data.is_dir():
        pytest.skip("real volumes are not beside the project (../shared/data)")
    folder = tmp_path_factory.mktemp("real_4x")
    run_training(
        folder, "--model", "medical_cycle_ganx4", "--ngf", "4", "--ndf", "4",
        "--clinical2micronetG", "sr_resnet_6blocks", "--micro2clinicalnetG", "resnet_6blocks",
        "--all_clinical_paths", str(data / "clinical" / "LIDC-IDRI-0001_lungbox.nii.gz"),
        "--all_micro_paths", str(data / "micro" / "LHDL_3155_D_4_bc_tif"),
        "--micro_spacing", "0.0195", "--slices", ":-40", "--batch_num", str(STEPS_4X // 2),
    )  # fmt: skip
    return folder


def test_4x_learns_on_ct_and_bone(trained_4x: Path) -> None:
    log = trained_4x / "checkpoints" / "medical_cycle_ganx4_x4" / "loss_log.csv"
    with log.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == STEPS_4X
    for name, share in (("downsample", 0.5), ("cycle_A", 0.8), ("upsample", 0.8)):
        first = np.mean([float(row[name]) for row in rows[:50]])
        last = np.mean([float(row[name]) for row in rows[-50:]])
        assert last < share * first, f"{name} went from {first:.3f} to {last:.3f}"


def test_4x_restores_held_back_bone(trained_4x: Path, shared_data: Path) -> None:
    bone = ("--input", str(shared_data / "micro" / "LHDL_3155_D_4_bc_tif"))
    micro = ("--method", "microCTsmallpatchtest", *bone, "--micro_spacing", "0.0195")
    results = run_test(trained_4x, "bone", *micro, "--slices", "-10:")
    scores = total_scores(results)
    assert set(scores) == {"SR", "nearest", "linear", "cubic"}
    # A network of random weights scores below 10 dB here; cubic interpolation about 20 dB.
    assert scores["SR"]["psnr"] > 14
    assert scores["cubic"]["psnr"] > 17
    high = load_nifti(results / "micro_HR.nii.gz")
    low = load_nifti(results / "micro_LR.nii.gz")
    assert high.shape == (200, 200, 10)
    assert low.shape == (50, 50, 10)
    np.testing.assert_allclose(
        corners(high.affine, high.shape), corners(low.affine, low.shape), atol=1e-3
    )
    with pytest.raises(UserError, match="10 of 10 slices were trained on"):
        run_test(trained_4x, "seen", *micro, "--slices", "0:10")


def test_4x_super_resolves_another_patient(trained_4x: Path, shared_data: Path) -> None:
    source = shared_data / "clinical" / "LIDC-IDRI-0002_lungbox.nii.gz"
    results = run_test(trained_4x, "lidc2", "--input", str(source), "--slices", "120:122")
    enlarged = load_nifti(results / "SR.nii.gz")
    clinical = load_nifti(results / "clinical.nii.gz")
    original = load_nifti(source)
    assert enlarged.shape == (413 * 4, 291 * 4, 2)
    assert enlarged.get_data_dtype() == np.int16
    np.testing.assert_array_equal(
        np.asarray(clinical.dataobj), np.asarray(original.dataobj[:, :, 120:122])
    )
    np.testing.assert_allclose(
        corners(enlarged.affine, enlarged.shape),
        corners(clinical.affine, clinical.shape),
        atol=1e-3,
    )
    values = np.asarray(enlarged.dataobj)
    assert values.max() > 500  # bone beyond the window is carried over
    assert (results / "preview.png").stat().st_size > 10_000


def test_4x_super_resolves_a_dicom_series(trained_4x: Path, shared_data: Path) -> None:
    series = shared_data / "clinical" / "LIDC-IDRI-0001_dicom_24slices"
    results = run_test(trained_4x, "dicom", "--input", str(series), "--slices", "11:12")
    enlarged = load_nifti(results / "SR.nii.gz")
    assert enlarged.shape == (2048, 2048, 1)
    np.testing.assert_allclose(enlarged.header.get_zooms(), [0.703125 / 4, 0.703125 / 4, 2.5])


def test_8x_trains_on_ct_and_fly(tmp_path: Path, shared_data: Path) -> None:
    run_training(
        tmp_path, "--ngf", "8", "--ndf", "4", "--clinical_patch_size", "32",
        "--all_clinical_paths", str(shared_data / "clinical" / "LIDC-IDRI-0001_lungbox.nii.gz"),
        "--all_micro_paths", str(shared_data / "micro" / "fly_150x256x256.tif"),
        "--slices", ":100", "--batch_num", "2",
    )  # fmt: skip
    results = run_test(
        tmp_path, "fly", "--method", "microCTsmallpatchtest", "--slices", "120:122",
        "--input", str(shared_data / "micro" / "fly_150x256x256.tif"),
    )  # fmt: skip
    assert np.isfinite(total_scores(results)["SR"]["psnr"])
    source = shared_data / "clinical" / "LIDC-IDRI-0002_lungbox.nii.gz"
    results = run_test(tmp_path, "ct", "--input", str(source), "--slices", "125:126")
    assert load_nifti(results / "SR.nii.gz").shape == (413 * 8, 291 * 8, 1)
