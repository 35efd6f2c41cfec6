"""Measures of a patient whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from phantom_helpers import small_case

from data.windows import CLINICAL_WINDOW
from methods.phantom.scores import MEASURES, SLICE_FIELDS, of_method, score_case

CASE = small_case()


def measures(volume: np.ndarray) -> dict[str, float]:
    (found,) = score_case(CASE, {"it": volume.astype(np.float32)}, CLINICAL_WINDOW)
    assert list(found.measures) == list(MEASURES)
    return found.measures


def test_the_truth_is_perfect_in_every_measure() -> None:
    found = measures(CASE.truth)
    for name, value in found.items():
        best = math.inf if name.startswith("psnr") else 1 if name in ("ssim", "sharpness") else 0
        assert value == pytest.approx(best, abs=1e-3), name


def test_a_shift_in_hu_is_an_error_and_no_change_of_texture() -> None:
    found = measures(CASE.truth + 20)
    assert found["mae"] == pytest.approx(20)
    assert found["intensity"] == pytest.approx(20)
    assert found["consistency"] == pytest.approx(20, abs=0.01)
    for name in ("psnr", "psnr_nodule", "psnr_vessels", "psnr_parenchyma"):
        assert found[name] == pytest.approx(20 * np.log10(1500 / 20), abs=1e-3)
    assert found["spectrum"] == pytest.approx(0, abs=1e-3)
    assert found["sharpness"] == pytest.approx(1, abs=1e-3)


def test_a_flat_lung_has_no_walls_and_no_texture() -> None:
    flat = CASE.truth.copy()
    flat[CASE.regions["parenchyma"]] = CASE.truth[CASE.regions["parenchyma"]].mean()
    found = measures(flat)
    assert found["intercept"] > 100
    assert found["airspace"] == pytest.approx(70, abs=3)  # all of it is above the threshold
    assert found["psnr_nodule"] == math.inf
    assert found["psnr_parenchyma"] < found["psnr"]
    assert found["nodule_volume"] == 0
    assert found["spectrum"] > 1


def test_a_nodule_that_shrank_is_told_by_its_volume() -> None:
    smaller = CASE.truth.copy()
    smaller[:, 4:6, 4:12] = -900
    assert measures(smaller)["nodule_volume"] == pytest.approx(25)


def test_rows_tell_slice_and_region() -> None:
    (found,) = score_case(CASE, {"it": CASE.truth + 10}, CLINICAL_WINDOW)
    assert [(row["slice"], row["region"]) for row in found.slices] == [
        (index, region) for index in (0, 1) for region in CASE.regions
    ]
    assert all(tuple(row) == SLICE_FIELDS for row in found.slices)
    assert all(row["mae"] == pytest.approx(10) for row in found.slices)


def test_what_a_patient_has_none_of_is_not_measured() -> None:
    healthy = small_case(disease="healthy")
    healthy.labels[healthy.labels == 4] = 1
    (found,) = score_case(healthy, {"it": healthy.truth}, CLINICAL_WINDOW)
    assert math.isnan(found.measures["nodule_volume"])
    assert math.isnan(found.measures["psnr_nodule"])


def test_values_outside_the_window_do_not_count() -> None:
    found = measures(np.where(CASE.truth == 50, 4000, CASE.truth))
    clipped = measures(np.where(CASE.truth == 50, 500, CASE.truth))
    assert found == clipped


def test_one_value_a_patient_is_picked_by_method() -> None:
    scores = [
        *score_case(CASE, {"a": CASE.truth, "b": CASE.truth + 1}, CLINICAL_WINDOW),
        *score_case(small_case(1), {"a": small_case(1).truth + 3}, CLINICAL_WINDOW),
    ]
    assert of_method(scores, "a", "mae") == [0, pytest.approx(3)]
    assert of_method(scores, "b", "mae") == [pytest.approx(1)]
