"""Linear opponents and the control, learned from small cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from data.phantom.scanners import ClinicalScanner
from data.truth_case import TruthCase
from methods.truth.opponents import BLIND, CONTROL, KNOWN, WIENER, Method, filters, mean_spectrum

SCANNER = ClinicalScanner()


def blurred_case(seed: int) -> TruthCase:
    """64 x 64 clinical pixels of smooth texture, seen by the phantom's scanner."""
    generator = np.random.default_rng(seed)
    texture = gaussian_filter(generator.normal(0, 1, (2, 128, 128)), (0, 3, 3))
    truth = (-850 + 100 * texture / texture.std()).astype(np.float32)
    average = truth.reshape(2, 64, 2, 64, 2).mean((2, 4))
    clinical = SCANNER.acquire(SCANNER.blur(average), generator).astype(np.float32)
    thin = truth + generator.normal(0, 60, truth.shape).astype(np.float32)
    return TruthCase(
        f"seed{seed}",
        "healthy",
        clinical,
        np.ones(clinical.shape, bool),
        truth,
        thin,
        np.ones(truth.shape, np.uint8),
        np.diag([0.25, 0.25, 0.5, 1.0]),
        2,
    )


@pytest.fixture(scope="module")
def found() -> dict[str, Method]:
    return {one.name: one for one in filters([blurred_case(n) for n in range(3)], True)}


def error(method: Method, case: TruthCase) -> float:
    return float(np.sqrt(np.mean((method.enlarge(case) - case.truth) ** 2)))


def test_oracles_know_more_than_the_blind_filter(found: dict[str, Method]) -> None:
    case = blurred_case(9)
    assert error(found[KNOWN], case) < error(found[BLIND], case)
    assert error(found[WIENER], case) < error(found[BLIND], case)
    assert error(found[WIENER], case) == pytest.approx(error(found[KNOWN], case), rel=0.15)
    kinds = [one.kind for one in found.values()]
    assert kinds == ["baseline", "oracle", "oracle", "control"]


def test_the_control_has_the_spectrum_of_thin_slices_and_larger_errors(
    found: dict[str, Method],
) -> None:
    case = blurred_case(9)
    frequency, wanted = mean_spectrum([case.thin], [case])
    _, power = mean_spectrum([found[CONTROL].enlarge(case)], [case])
    inside = frequency > 0.3
    decibel = 10 * np.log10(power / wanted)[inside]
    assert np.abs(decibel.mean()) < 0.7
    assert error(found[CONTROL], case) > error(found[BLIND], case) + 20
    np.testing.assert_array_equal(found[CONTROL].enlarge(case), found[CONTROL].enlarge(case))


def test_of_another_scanner_no_oracle_knows_anything() -> None:
    assert [one.name for one in filters([blurred_case(0)], False)] == [BLIND, CONTROL]
