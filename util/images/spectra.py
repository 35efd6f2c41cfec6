"""What spectra of a part of an image share: a border that fades, and rings of equal frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def faded(inside: NDArray[Any], width: float) -> NDArray[np.float32]:
    """A mask as weights from 0 to 1 whose border, the image's too, fades inwards.

    A sharp border would fill the spectrum of what it cuts out.

    Args:
        inside: (rows, columns), non-zero inside.
        width: standard deviation of the fading in pixels.

    Returns:
        float32 of the same shape; a mask too thin to fade inwards fades around its border.
    """
    inside = np.asarray(inside) != 0
    # Pixels by their distance from what is outside, and the image's border is outside.
    eroded = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] > 2 * width
    kept = eroded if eroded.any() else inside
    weights: NDArray[np.float32] = ndimage.gaussian_filter(kept.astype(np.float32), width)
    return weights


def ring_numbers(rows: int, columns: int) -> tuple[NDArray[np.intp], int]:
    """The ring of each frequency of `np.fft.fft2`, and the number of whole rings.

    Ring n holds what makes n waves over the shorter edge; those that only one direction has, in the
    corners, are numbered on.
    """
    edge = min(rows, columns)
    distance = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)) * edge
    return np.rint(distance).astype(np.intp), edge // 2 + 1


def ring_sums(values: NDArray[Any], numbers: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Sum of values (rows, columns) over each of the first `count` rings."""
    inside = numbers < count
    weights = np.asarray(values, dtype=np.float64)[inside]
    return np.bincount(numbers[inside], weights, count).astype(np.float64)
