"""Means over patients with intervals that cover what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95
LEAST = 4  # patients below which no interval is given: two or three prove nothing


class Interval(NamedTuple):
    """A mean with its 95 % interval; both ends are NaN where there are too few values."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of one value a patient, with Student's 95 % interval.

    Patients count, not slices, since those of one patient are alike. Student's interval covers the
    mean of normal values in 95 of 100 studies whatever their number, of flat or skewed values in 92
    to 95, where a percentile bootstrap over ten patients covers 89 and over four 77. NaN, a measure
    that a patient has none of, is left out; what is infinite is not, and so is the mean then.

    Args:
        values: one a patient; for a difference of two methods the patient's own difference.
    """
    known = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    if len(known) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    if len(known) < LEAST or not np.isfinite(mean):
        return Interval(mean, float("nan"), float("nan"))
    quantile = student.ppf((1 + CONFIDENCE) / 2, len(known) - 1)
    half = float(quantile * known.std(ddof=1) / np.sqrt(len(known)))
    return Interval(mean, mean - half, mean + half)
