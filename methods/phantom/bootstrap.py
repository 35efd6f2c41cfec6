"""Means over patients with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 9999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; both ends are the mean where there is but one value."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean of one value a patient, with the 95 % bootstrap interval (percentiles).

    Patients are drawn with replacement, not slices, since those of one patient are alike (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993). Values that are not finite, such as a
    measure that a patient has none of, are left out.

    Args:
        values: one a patient.
        seed: of the resampling.

    Returns:
        NaN in all places where no value is finite.
    """
    known = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    if len(known) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    if np.ptp(known) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (known,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))
