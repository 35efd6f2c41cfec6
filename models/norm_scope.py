"""Choose which pixels instance norm takes its statistics from.

In training a clinical patch lies wholly inside the lung, so G_A has only ever seen statistics of
lung. On a whole slice, chest wall, bone and outer air would enter them and shift the lung's
intensities. Taking mean and variance over the lung's pixels alone, layer by layer, gives the
network the statistics it knows, while the slice is still enlarged in one piece without tiles.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

# As many pixels as the published training patch has: fewer give noisier statistics than trained on.
FEWEST_PIXELS = 32 * 32


class NormScope:
    """The pixels that all instance norms of one network currently take their statistics from."""

    def __init__(self) -> None:
        self.mask: Tensor | None = None

    def set_mask(self, mask: np.ndarray | None, device: torch.device) -> None:
        """Take statistics over `mask` (rows, columns) of the input grid; None: over everything."""
        self.mask = None
        if mask is not None:
            chosen = at_least(mask != 0, FEWEST_PIXELS)
            self.mask = torch.from_numpy(chosen.astype(np.float32)).to(device)[None, None]

    def weights(self, height: int, width: int) -> Tensor | None:
        """Share of each pixel of a feature map, (height * width, ), summing to 1."""
        if self.mask is None:
            return None
        mask = F.interpolate(self.mask, size=(height, width), mode="nearest").flatten()
        return mask / mask.sum()


class ScopedInstanceNorm(nn.Module):
    """Instance norm over the scope's pixels; without a mask the same as `nn.InstanceNorm2d`."""

    def __init__(self, scope: NormScope, eps: float) -> None:
        super().__init__()
        self.scope = scope
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to the same shape."""
        weights = self.scope.weights(x.shape[2], x.shape[3])
        if weights is None:
            return F.instance_norm(x, eps=self.eps)
        result = torch.empty_like(x)
        # Channel by channel: the tail's feature maps are the largest tensors of all, and a second
        # one of their size would double the peak memory.
        for channel in range(x.shape[1]):
            plane = x[0, channel].float()
            centred = plane - torch.dot(plane.flatten(), weights)
            variance = torch.dot(centred.flatten() ** 2, weights)
            result[0, channel] = centred * torch.rsqrt(variance + self.eps)
        return result


def scope_norms(network: nn.Module) -> NormScope:
    """Replace every instance norm of `network` in place; returns the scope they share."""
    scope = NormScope()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.InstanceNorm2d):
                setattr(module, name, ScopedInstanceNorm(scope, child.eps))
    return scope


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
