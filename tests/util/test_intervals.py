"""Intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from util.intervals import mean_interval

Draw = Callable[[np.random.Generator, int], np.ndarray]


@pytest.mark.parametrize("count", [4, 10])
@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    [
        (lambda generator, count: generator.normal(5, 1, count), 5.0, 0.945),
        (lambda generator, count: generator.uniform(0, 1, count), 0.5, 0.915),
        (lambda generator, count: generator.gamma(4, 1, count), 4.0, 0.92),  # skewed
    ],
)
def test_intervals_cover_what_they_say(draw: Draw, mean: float, least: float, count: int) -> None:
    generator = np.random.default_rng(count)
    found = [mean_interval(list(draw(generator, count))) for _ in range(4000)]
    covered = np.mean([one.low <= mean <= one.high for one in found])
    assert least <= covered <= 0.96


def test_the_interval_is_students() -> None:
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5
    # 3.182 is Student's 97.5 % quantile of three degrees of freedom.
    assert found.high - found.mean == pytest.approx(3.182 * math.sqrt(5 / 3 / 4), abs=1e-3)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


@pytest.mark.parametrize("values", [[3.0], [3.0, 4.0], [3.0, 4.0, 5.0, math.nan]])
def test_few_patients_prove_nothing(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.mean == pytest.approx(np.nanmean(values))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_what_a_patient_has_not_is_left_out() -> None:
    assert mean_interval([2.0, math.nan, 2.0]).mean == 2.0
    assert math.isnan(mean_interval([math.nan]).mean)


def test_a_failure_without_limit_is_not_left_out() -> None:
    found = mean_interval([2.0, 2.5, 3.0, 2.0, math.inf])
    assert found.mean == math.inf
    assert math.isnan(found.low)
