"""Choose which pixels instance norm takes its statistics from.

In training a clinical patch lies wholly inside the lung, so G_A has only ever seen statistics of
lung. On a whole slice, chest wall, bone and outer air would enter them and shift the lung's
intensities. Taking mean and variance over the lung's pixels alone, layer by layer, gives the
network the statistics it knows, while the slice is still enlarged in one piece without tiles.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

# As many pixels as the published training patch has: fewer give noisier statistics than trained on.
FEWEST_PIXELS = 32 * 32


class PixelWeights:
    """Weight of each pixel of a slice in the norm statistics, on the grid of any feature map.

    Args:
        mask: (N, 1, H, W) float32 on the input's grid: 1 inside the scope, 0 outside.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def rows(self, first: int, last: int, factor: int) -> Tensor:
        """Rows first <= row < last on a grid `factor` times finer: (N, 1, last - first, W)."""
        if factor == 1:
            return self.mask[:, :, first:last]
        above = first // factor
        part = self.mask[:, :, above : -(-last // factor)]
        finer = part.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        return finer[:, :, first - above * factor : last - above * factor]


def scope_weights(mask: np.ndarray, device: torch.device) -> PixelWeights:
    """Weights of the pixels of `mask` (rows, columns): 1 where it is not 0."""
    return PixelWeights(torch.from_numpy((mask != 0).astype(np.float32)).to(device)[None, None])


def at_least(mask: np.ndarray, count: int) -> np.ndarray:
    """Grow a bool mask (rows, columns) to `count` pixels, the nearest ones first.

    A mask that is large enough comes back as it is, an image smaller than `count` as all True.

    Raises:
        ValueError: the mask is empty, so nothing is near it.
    """
    if not mask.any():
        raise ValueError("an empty mask has no statistics")
    if np.count_nonzero(mask) >= count:
        return mask
    distance = ndimage.distance_transform_edt(~mask)
    reach = np.sort(distance, axis=None)[min(count, mask.size) - 1]
    grown: np.ndarray = distance <= reach
    return grown
