"""Make an enlarged slice agree with its input: its area average becomes the input.

One pixel of a CT is, to a first approximation, the average over its area. An enlargement that is
to show the same image must average to it. The difference between input and average is enlarged
and added. Enlarging with nearest or linear interpolation would do this with visible blocks, or not
exactly; here the cubic spline's coefficients are chosen such that its area average is the
difference itself, so one step is exact and as smooth as the spline.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from util.images.resampling import area_average, interpolation_operator


def back_project(
    enlarged: NDArray[np.float32], image: NDArray[np.float32], scale: int
) -> NDArray[np.float32]:
    """Correct an enlargement so that its area average is the input.

    Args:
        enlarged: float32 (rows * scale, columns * scale), in any unit.
        image: float32 (rows, columns) in the same unit.
        scale: 2 or more.

    Returns:
        float32 (rows * scale, columns * scale); its area average equals `image` to rounding.
    """
    difference = image - area_average(enlarged, scale)
    rows, columns = difference.shape
    taller = np.matmul(_mean_keeping_operator(rows, scale), difference, dtype=np.float32)
    correction = np.matmul(taller, _mean_keeping_operator(columns, scale).T, dtype=np.float32)
    correction += enlarged
    return correction


def consistency_errors(
    enlarged: NDArray[np.float32], image: NDArray[np.float32], scale: int
) -> NDArray[np.float32]:
    """Absolute difference between an enlargement's area average and its input: (rows, columns)."""
    return np.abs(area_average(enlarged, scale) - image)


@lru_cache(maxsize=8)
def _mean_keeping_operator(length: int, scale: int) -> NDArray[np.float32]:
    """Matrix (length * scale, length): a cubic spline whose block means are the given values."""
    spline = interpolation_operator(length, scale, 3).astype(np.float64)
    means = spline.reshape(length, scale, length).mean(axis=1)
    operator = np.linalg.solve(means.T, spline.T).T.astype(np.float32)
    operator.flags.writeable = False
    return operator
