"""Join super-resolution with interpolation: inside the lung and window one, elsewhere the other."""

from __future__ import annotations

import numpy as np

from data.windows import IntensityWindow
from util.images.resampling import enlarge


def compose_slice(
    super_resolved: np.ndarray,
    interpolated: np.ndarray,
    window: IntensityWindow,
    mask: np.ndarray | None,
) -> np.ndarray:
    """Choose for each pixel between super-resolution and interpolation, in physical units.

    Where the interpolated input lies outside the window, the network saw it clipped, so the
    interpolated value is carried over: bone stays bone. Outside the lung mask the interpolated
    value stands too; across the mask's border the two are mixed linearly over one input pixel,
    so that no staircase of enlarged mask pixels shows.

    Args:
        super_resolved: float32 (rows * k, columns * k) in physical units (HU).
        interpolated: the same grid, cubic interpolation of the input.
        window: of the network's input.
        mask: lung mask of the input slice (rows, columns), non-zero inside; None for everywhere.

    Returns:
        float32 (rows * k, columns * k).
    """
    chosen = np.where(window.outside(interpolated), interpolated, super_resolved)
    if mask is None:
        return chosen
    scale = interpolated.shape[0] // mask.shape[0]
    share = enlarge((mask != 0).astype(np.float32), scale, order=1).clip(0.0, 1.0)
    return interpolated + share * (chosen - interpolated)
