"""Filters along the rows and columns of images: cubic enlargement (`--skip cubic`), and blur.

They are sums of shifted images and no convolutions: those a GPU may be told to round (TF32), and
with one channel torch's are several times slower, on a GPU and on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2  # input pixels on each side
KEYS_A = -0.5  # the one value for which straight ramps come out straight (Keys 1981)


def gaussian_weights(sigma: float, reach: int) -> list[float]:
    """A Gaussian's weights of 2 * reach + 1 pixels along a line, summing to 1."""
    weights = [math.exp(-(place**2) / (2 * sigma**2)) for place in range(-reach, reach + 1)]
    return [weight / sum(weights) for weight in weights]


def weighted_neighbours(images: Tensor, weights: Sequence[float]) -> Tensor:
    """Sums of pixels around each pixel, by the same weights along rows and along columns.

    Args:
        images: (N, C, H, W).
        weights: one for each neighbour along a line.

    Returns:
        (N, C, H - len(weights) + 1, W - len(weights) + 1) of the same type.
    """
    for line in (2, 3):
        length = images.shape[line] - len(weights) + 1
        total = weights[0] * images.narrow(line, 0, length)
        for place, weight in enumerate(weights[1:], start=1):
            total = torch.add(total, images.narrow(line, place, length), alpha=weight)
        images = total
    return images


def enlarge_cubic(clinical: Tensor, scale: int, rows: tuple[int, int] | None = None) -> Tensor:
    """Cubic convolution (Keys, IEEE Trans. ASSP 29 (1981) 1153-1160) on the grid of P.

    The outer corners of both images coincide; beyond the border the edge is repeated.

    Args:
        clinical: (N, 1, H, W).
        scale: whole number from 1.
        rows: input rows (first, last) whose enlargement is wanted; None for all.

    Returns:
        (N, 1, (last - first) * scale, W * scale) of the same type; overshoots at edges.
    """
    first, last = rows or (0, clinical.shape[2])
    low, high = max(0, first - REACH), min(clinical.shape[2], last + REACH)
    above, below = REACH - (first - low), REACH - (high - last)
    images = F.pad(clinical[:, :, low:high], (REACH, REACH, above, below), mode="replicate")
    weights = _phases(scale, clinical.device, clinical.dtype)
    for line in (3, 2):
        length = images.shape[line] - 2 * REACH
        # The pixels that lie in one input pixel have an axis of their own behind its line.
        taps = weights.view(2 * REACH + 1, scale, *[1] * (3 - line))
        neighbours = (images.narrow(line, k, length).unsqueeze(line + 1) for k in range(len(taps)))
        total = next(neighbours) * taps[0]
        for weight, neighbour in zip(taps[1:], neighbours, strict=True):
            total = torch.addcmul(total, neighbour, weight)
        images = total.flatten(line, line + 1)
    return images


def beside_cubic(band: Tensor, clinical: Tensor, scale: int, top: int) -> Tensor:
    """Image rows (N, 1, h, W * scale) from row `top` on, plus the cubic enlargement there."""
    first, last = top // scale, -(-(top + band.shape[2]) // scale)
    cubic = enlarge_cubic(clinical, scale, (first, last))
    return band + cubic.narrow(2, top - first * scale, band.shape[2])


# Kept on the device, which a copy at each call would make wait, and for training too, whoever asks
# first: a tensor made in inference mode could not be.
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _phases(scale: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weights of each neighbour in the output pixels of one input pixel: (5, scale)."""
    offsets = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    return _keys((taps[:, None] - offsets[None, :]).abs()).to(device, dtype)


def _keys(distance: Tensor) -> Tensor:
    """The kernel at distances >= 0 in pixels."""
    inner = ((KEYS_A + 2) * distance - (KEYS_A + 3)) * distance**2 + 1
    outer = KEYS_A * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, inner, torch.where(distance < 2, outer, 0 * distance))
