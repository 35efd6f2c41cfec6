"""Paired differences from the best baseline."""

from __future__ import annotations

import numpy as np
import pytest

from methods.truth.opponents import INTERPOLATIONS, Method
from methods.truth.scores import MEASURES, CaseScores
from methods.truth.tables import cell, differences, in_words
from util.intervals import Interval

METHODS = [
    INTERPOLATIONS[0],
    INTERPOLATIONS[2],
    Method("an oracle", "oracle", INTERPOLATIONS[0].enlarge),
    Method("SR", "model", INTERPOLATIONS[0].enlarge),
]


def scores(values: dict[str, list[float]], measure: str = "psnr") -> list[CaseScores]:
    return [
        CaseScores(
            f"p{number}",
            "healthy",
            method,
            {**dict.fromkeys(MEASURES, float("nan")), measure: value},
            [],
            (np.empty(0), np.empty(0)),
        )
        for method, row in values.items()
        for number, value in enumerate(row)
    ]


def test_patients_are_paired_with_the_baseline_that_is_best_on_average() -> None:
    """Patients differ by 4 dB, the gains by 0.1: the interval is that of the gains."""
    base = [20.0, 22, 24, 26, 28]
    gains = [1.0, 1.1, 0.9, 1.05, 0.95]
    found = differences(
        scores(
            {
                "nearest": [value - 1 for value in base],
                "cubic": base,
                "an oracle": [value + 9 for value in base],
                "SR": [value + gain for value, gain in zip(base, gains, strict=True)],
            }
        ),
        METHODS,
    )
    baseline, interval = found["SR"]["psnr"]
    assert baseline == "cubic"
    assert interval.mean == pytest.approx(1.0)
    assert 0.85 < interval.low < 1 < interval.high < 1.15
    assert in_words(found) == [
        "SR minus the best baseline, patient by patient: PSNR +1.000 (+0.902 to +1.098) dB (cubic)"
    ]


@pytest.mark.parametrize(("measure", "best"), [("mae", "nearest"), ("sharpness", "cubic")])
def test_best_is_what_the_measure_says(measure: str, best: str) -> None:
    values = {"nearest": [0.5] * 4, "cubic": [1.2] * 4, "an oracle": [1.0] * 4, "SR": [1.0] * 4}
    assert differences(scores(values, measure), METHODS)["SR"][measure].baseline == best


def test_cells_show_what_is_known() -> None:
    nan = float("nan")
    assert cell(Interval(nan, nan, nan)) == ""
    assert cell(Interval(0.5, nan, nan)) == "0.500"
    assert cell(Interval(21.234, 20.1, 22.4)) == "21.23 (20.10 to 22.40)"
    assert cell(Interval(-0.5, -0.7, -0.3), signed=True) == "-0.500 (-0.700 to -0.300)"
