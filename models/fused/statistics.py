"""Mean and variance of feature maps, gathered piece by piece and joined without loss.

Instance norm needs the statistics of a whole slice (or volume), while its pixels come in bands.
Each band gives its own count, mean and squared deviation; two of them are joined by the formula of
Chan, Golub and LeVeque (1979), which adds the term between the bands, so that the result is that
of all pixels at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

SMALLEST_COUNT = 1e-6  # below any pixel's share: only keeps 0 / 0 out of a band without pixels


@dataclass(frozen=True)
class Moments:
    """First two moments of N x C sets of pixels, in float64."""

    count: Tensor  # (N, 1, 1, 1) pixels, or the sum of their weights
    mean: Tensor  # (N, C, 1, 1)
    deviation: Tensor  # (N, C, 1, 1), sum of the squared differences from the mean

    def joined(self, other: Moments) -> Moments:
        """Moments of the pixels of both sets."""
        count = self.count + other.count
        share = other.count / count.clamp(min=SMALLEST_COUNT)
        difference = other.mean - self.mean
        between = difference.square() * (self.count * share)
        return Moments(
            count, self.mean + difference * share, self.deviation + other.deviation + between
        )

    def affine(self, eps: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Instance norm as x * scale + shift; both (N, C, 1, 1) of `dtype`."""
        variance = self.deviation / self.count.clamp(min=SMALLEST_COUNT)
        scale = torch.rsqrt(variance + eps)
        return scale.to(dtype), (-self.mean * scale).to(dtype)


def measure(values: Tensor, weights: Tensor | None = None) -> Moments:
    """Moments of each channel of feature maps.

    Args:
        values: (N, C, H, W), any float type and memory format; computed in float32 or wider.
        weights: (N, 1, H, W) float32, non-negative weight of each pixel; None counts all alike.
    """
    pixels = widened(values)
    if weights is None:
        count = torch.full(
            (len(values), 1, 1, 1),
            float(values.shape[2] * values.shape[3]),
            dtype=torch.float64,
            device=values.device,
        )
        mean = pixels.mean((2, 3), keepdim=True)
        deviation = (pixels - mean).square_().sum((2, 3), keepdim=True)
    else:
        total = weights.sum((2, 3), keepdim=True)
        count = total.double()
        mean = (pixels * weights).sum((2, 3), keepdim=True) / total.clamp(min=SMALLEST_COUNT)
        deviation = (pixels - mean).square_().mul_(weights).sum((2, 3), keepdim=True)
    return Moments(count, mean.double(), deviation.double())


def widened(values: Tensor) -> Tensor:
    """In the type that norms are computed in: float32, or float64 where that is given."""
    return values if values.dtype == torch.float64 else values.float()


def pooled(sets: Iterable[Moments]) -> Moments:
    """Moments of all pixels of several sets, at least one."""
    return reduce(Moments.joined, sets)
