"""Cubic enlargement, which generators with a long skip add to (`--skip cubic`)."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2  # input pixels on each side
KEYS_A = -0.5  # the one value for which straight ramps come out straight (Keys 1981)


def enlarge_cubic(clinical: Tensor, scale: int, rows: tuple[int, int] | None = None) -> Tensor:
    """Cubic convolution (Keys, IEEE Trans. ASSP 29 (1981) 1153-1160) on the grid of P.

    The outer corners of both images coincide; beyond the border the edge is repeated. It is one
    small convolution and a PixelShuffle, so that it can be exported and taken row by row.

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
    padded = F.pad(clinical[:, :, low:high], (REACH, REACH, above, below), mode="replicate")
    kernel = _phases(scale, clinical.device, clinical.dtype)
    # Outside of autocast: in bf16 the whole image would lose its last bits. Autocast knows no meta
    # device, on which a step is counted.
    kind = "cpu" if clinical.is_meta else clinical.device.type
    with torch.autocast(kind, enabled=False):
        return F.pixel_shuffle(F.conv2d(padded, kernel), scale)


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
    """Weights of the output pixels that lie in one input pixel: (scale^2, 1, 5, 5)."""
    offsets = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    line = _keys((taps[None, :] - offsets[:, None]).abs())  # (scale, 5)
    weights = torch.einsum("iy,jx->ijyx", line, line).reshape(scale**2, 1, 5, 5)
    return weights.to(device, dtype)


def _keys(distance: Tensor) -> Tensor:
    """The kernel at distances >= 0 in pixels."""
    inner = ((KEYS_A + 2) * distance - (KEYS_A + 3)) * distance**2 + 1
    outer = KEYS_A * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, inner, torch.where(distance < 2, outer, 0 * distance))
