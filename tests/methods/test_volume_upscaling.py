"""smallpatchtest with a real generator: honesty, file types and scopes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from method_helpers import block_means, read_nifti
from run_helpers import Inference

from data.windows import CLINICAL_WINDOW

SCALE = 2


@pytest.fixture
def inference(tmp_path: Path) -> Inference:
    return Inference(tmp_path)


# ---- honesty ----


@pytest.mark.parametrize("region", ["lung", "all"])
def test_consistency_makes_the_result_average_to_its_input(
    inference: Inference, region: str
) -> None:
    plain = inference.run("plain", "--region", region)
    true = inference.run("true", "--region", region, "--consistency")
    array, _ = read_nifti(inference.ct)
    inside = ~CLINICAL_WINDOW.outside(array)
    for folder, low, high in ((plain, 1.0, np.inf), (true, 0.0, 1.0)):
        enlarged, _ = read_nifti(folder / "SR.nii.gz")
        largest = np.abs(block_means(enlarged, SCALE) - array)[inside].max()
        assert low <= largest < high
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        stated = record["consistency_error_hu"]
        assert stated["largest"] == pytest.approx(largest, abs=1e-3)
        assert stated["slices"] == len(array)
        assert 0 < stated["mean"] < stated["largest"]


def test_uncertainty_is_a_volume_in_hu_that_is_zero_outside_the_lung(inference: Inference) -> None:
    folder = inference.run("out", "--uncertainty")
    spread, image = read_nifti(folder / "uncertainty.nii.gz")
    enlarged, other = read_nifti(folder / "SR.nii.gz")
    assert spread.shape == enlarged.shape
    np.testing.assert_array_equal(image.affine, other.affine)
    lung, _ = read_nifti(inference.ct.with_name("ct_mask.nii.gz"))
    fine = lung.repeat(SCALE, 1).repeat(SCALE, 2) != 0
    assert spread[~fine].max() == 0
    assert spread[fine].mean() > 1
    assert spread.min() == 0


def test_uncertainty_leaves_the_result_as_it_is_and_the_ensemble_does_not(
    inference: Inference,
) -> None:
    plain, spread, averaged = (
        read_nifti(inference.run(name, *more, "--region", "all") / "SR.nii.gz")[0].astype(int)
        for name, more in (
            ("plain", ()),
            ("spread", ("--uncertainty",)),
            ("averaged", ("--self_ensemble",)),
        )
    )
    # Grouped slices and single ones are other sums in float32, which rounding may show.
    assert np.abs(spread - plain).max() <= 1
    assert np.abs(averaged - plain).max() > 1


def test_the_record_says_how_it_ran(inference: Inference) -> None:
    folder = inference.run("out", "--backend", "torch", "--precision", "bf16")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert len(record["weights"]) == 64
    assert (record["backend"], record["precision"]) == ("torch", "bf16")
    assert (record["norm_scope"], record["norm_pixels"]) == ("lung", "lung")
    assert record["window"] == {"low": -1000.0, "high": 500.0}
    assert record["peak_memory_bytes"] > 0
    assert record["seconds"] > 0
    assert record["seconds_per_slice"] == pytest.approx(record["seconds"] / 12, abs=1e-3)
    assert record["slices_resumed"] == 0
    assert record["determined_by"]["weights"] == record["weights"]


# ---- file types and scopes ----


def test_an_unpacked_result_holds_the_same_voxels(inference: Inference) -> None:
    packed = inference.run("packed")
    plain = inference.run("plain", "--output_name", "fine.nii")
    assert {p.name for p in plain.iterdir()} == {
        "fine.nii", "clinical.nii", "preview.png", "run.json",
    }  # fmt: skip
    for first, second in (("SR.nii.gz", "fine.nii"), ("clinical.nii.gz", "clinical.nii")):
        np.testing.assert_array_equal(read_nifti(packed / first)[0], read_nifti(plain / second)[0])


def test_volume_statistics_differ_from_each_slices_own(inference: Inference) -> None:
    own, pooled, again = (
        read_nifti(inference.run(name, "--norm_scope", scope) / "SR.nii.gz")[0]
        for name, scope in (("own", "slice"), ("pooled", "volume"), ("again", "volume"))
    )
    assert np.abs(own.astype(int) - pooled).max() > 1
    np.testing.assert_array_equal(pooled, again)


def test_a_slice_computed_in_parts_has_the_same_values(inference: Inference) -> None:
    """The least memory that is accepted; what is not kept is computed again."""
    plain = inference.run("plain", "--backend", "torch")
    little = inference.run("little", "--backend", "torch", "--max_memory", "0.0002")
    first, second = (read_nifti(folder / "SR.nii.gz")[0] for folder in (plain, little))
    assert np.abs(first.astype(int) - second).max() <= 1


def test_too_little_memory_is_refused_in_one_line(
    inference: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    inference.run("out", "--max_memory", "1e-6", code=2)
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: ")
    assert "--max_memory" in err
    assert "Traceback" not in err
