"""Make a low-resolution image from a high-resolution one by shrinking it 2^n times."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

from util.errors import UserError
from util.images.resampling import area_average

Degradation = Literal["area", "zoom"]
DEGRADATIONS: tuple[Degradation, ...] = ("area", "zoom")


def shrink(image: np.ndarray, scale: int, method: Degradation = "area") -> np.ndarray:
    """Shrink an image `scale` times in both directions.

    Args:
        image: float32 (rows, columns), any unit; both sizes divisible by `scale`.
        scale: 2^n.
        method: "area" is the mean over scale x scale blocks: the pixel grid of the loss's P
            (average pooling), so image corners stay in place. "zoom" is the published cubic
            `scipy.ndimage.zoom` without a filter, kept for comparison: it aliases, drifts by up
            to (scale - 1) / 2 pixels of `image` towards its edges, and may overshoot the range
            or leave the last row and column at 0.

    Returns:
        float32 (rows / scale, columns / scale).

    Raises:
        UserError: a size that is not a multiple of `scale`, or an unknown method.
    """
    rows, columns = image.shape
    if rows % scale or columns % scale:
        raise UserError(
            f"an image of {columns}x{rows} pixels cannot be shrunk {scale} times: "
            f"give sizes that are multiples of {scale}"
        )
    if method == "area":
        return area_average(image, scale)
    if method == "zoom":
        return ndimage.zoom(image, 1.0 / scale, order=3).astype(np.float32, copy=False)
    raise UserError(f"degradation {method!r} is not known: give one of {', '.join(DEGRADATIONS)}")
