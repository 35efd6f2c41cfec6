"""Bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from methods.phantom.report import Interval, bootstrap_mean


def test_the_interval_is_about_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(20, 2, 200)
    found = bootstrap_mean(list(values))
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / np.sqrt(200)
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        found = bootstrap_mean(list(generator.normal(5, 1, 40)))
        covered += found.low <= 5 <= found.high
    assert 88 <= covered <= 99


def test_a_seed_repeats_it_and_one_value_has_no_spread() -> None:
    assert bootstrap_mean([1.0, 2.0, 4.0]) == bootstrap_mean([1.0, 2.0, 4.0])
    assert bootstrap_mean([3.0]) == Interval(3.0, 3.0, 3.0)


def test_what_a_patient_has_not_is_left_out() -> None:
    assert bootstrap_mean([2.0, math.nan, 2.0, math.inf]).mean == 2.0
    assert math.isnan(bootstrap_mean([math.nan]).mean)
