"""Measures of a patient whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from phantom_helpers import small_case

from data.windows import CLINICAL_WINDOW
from methods.truth.scores import GROUPS, MEASURES, SLICE_FIELDS, CaseScores, Scorer, of_method

CASE = small_case()
TRUST = {"consistency": 3.0, "flip": 4.0, "noise_gain": 1.0, "lattice": 0.5}


def scored(volume: np.ndarray, case: object = CASE) -> CaseScores:
    return Scorer(case, CLINICAL_WINDOW).score("it", volume.astype(np.float32), TRUST)  # type: ignore[arg-type]


def measures(volume: np.ndarray) -> dict[str, float]:
    found = scored(volume)
    assert list(found.measures) == list(MEASURES)
    return found.measures


def test_the_truth_is_perfect_in_every_measure() -> None:
    found = measures(CASE.truth)
    best = {"ssim": 1.0, "sharpness": 1.0, "resolution": 2 * CASE.spacing[0]}
    best |= {f"vessels_{part}": 1.0 for part in ("f1", "precision", "recall")}
    missing = {"psnr_septa", "airway_wall", "airway_lumen"}  # this patient has none
    for name in (name for group in list(GROUPS.values())[:3] for name in group):
        if name in missing or name.startswith("septa"):
            assert math.isnan(found[name]), name
        else:
            wanted = math.inf if name.startswith("psnr") else best.get(name, 0)
            assert found[name] == pytest.approx(wanted, abs=1e-3), name
    assert {name: found[name] for name in TRUST} == TRUST


def test_a_shift_in_hu_is_an_error_and_no_change_of_texture() -> None:
    found = measures(CASE.truth + 20)
    assert found["mae"] == pytest.approx(20)
    assert found["intensity"] == pytest.approx(20)
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
    found = scored(CASE.truth + 10)
    assert [(row["slice"], row["region"]) for row in found.slices] == [
        (index, region) for index in (0, 1) for region in CASE.regions
    ]
    assert all(tuple(row) == SLICE_FIELDS for row in found.slices)
    assert all(row["mae"] == pytest.approx(10) for row in found.slices)


def test_what_a_patient_has_none_of_is_not_measured() -> None:
    healthy = small_case(disease="healthy")
    healthy.labels[healthy.labels == 4] = 1
    found = scored(healthy.truth, healthy)
    assert math.isnan(found.measures["nodule_volume"])
    assert math.isnan(found.measures["psnr_nodule"])


def test_values_outside_the_window_do_not_count() -> None:
    found = measures(np.where(CASE.truth == 50, 4000, CASE.truth))
    clipped = measures(np.where(CASE.truth == 50, 500, CASE.truth))
    assert found == pytest.approx(clipped, nan_ok=True)


def test_one_value_a_patient_is_picked_by_method() -> None:
    scores = [scored(CASE.truth + shift) for shift in (0, 3)]
    scores.append(replace(scored(CASE.truth + 1), method="other"))
    assert of_method(scores, "it", "mae") == [0, pytest.approx(3)]
    assert of_method(scores, "other", "mae") == [pytest.approx(1)]


def test_what_lies_outside_the_lung_does_not_count() -> None:
    outside = replace(CASE, labels=CASE.labels.copy())
    outside.labels[:, :, 26:] = 0
    broken = CASE.truth.copy()
    broken[:, :, 28:] = 400  # and what the fading border reaches
    found = scored(broken, outside).measures
    assert found["mae"] == 0
    assert found["psnr"] == math.inf
    assert found["intensity"] == 0
    assert "lung" in {row["region"] for row in scored(broken, outside).slices}


def test_texture_is_compared_with_thin_slices() -> None:
    rougher = replace(CASE, thin=CASE.truth + np.float32(30) * (CASE.truth < -900))
    assert scored(rougher.thin, rougher).measures["intensity"] == 0
    assert scored(rougher.truth, rougher).measures["intensity"] > 5
    assert scored(rougher.truth, rougher).measures["mae"] == 0
