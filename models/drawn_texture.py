"""Texture by one dial: what turns noise into the detail that G_A's best estimate leaves out.

A low-resolution pixel tells where a vessel runs, not where each wall of its alveoli stands. Of all
fine images that fit it, the best estimate is the mean, and so it is smooth. Layers between trunk
and upsampling move the features away from that mean by noise, so that each draw is one of those
images. How far is the dial: 0 leaves the best estimate as it is, to the last bit. Not of the paper;
docs/method.md has the loss that teaches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rows and columns from a pixel to another one: the differences between the two are compared with
# those of the truth, in all directions and over up to two alveoli. 4 and 8 along rows and columns
# are the input's pixels at 4x and 8x, where a grid would show.
OFFSETS = (
    (0, 1), (1, 1), (1, 0), (1, -1), (1, 2), (2, -1), (1, 3), (3, 1), (3, -2), (4, 0), (0, 4),
    (5, 4), (8, 0), (0, 8), (11, 5), (9, -12),
)  # fmt: skip
TEXTURE_CONVOLUTIONS = 3  # 3x3, each by one pixel on each side
LOUDER, FAINTER = 5.0, 0.25  # at the start: of the noise, and of what is added
SMOOTHED = 2  # pixels each way that are averaged first: the noise of micro-CT is no texture
DIFFERENCES_SHARE = 4.0  # weight of all differences together, against that of the values


def texture_layers(channels: int, noises: int) -> nn.Sequential:
    """Mirrored 3x3 convolutions: features beside noise to what is added to the features.

    Args:
        channels: of the features.
        noises: channels of the noise, which stands behind them: (N, channels + noises, H, W).
    """
    layers: list[nn.Module] = []
    for width in (channels + noises, *[channels] * (TEXTURE_CONVOLUTIONS - 1)):
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, channels, 3), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def start_texture(layers: nn.Sequential, noises: int) -> None:
    """Let new texture layers begin by noise, and faintly; in place.

    Drawn like all others, the weights of the noise would be lost beside those of the features, and
    hundreds of steps go by before draws differ.
    """
    first, last = layers[1], layers[-1]
    if not isinstance(first, nn.Conv2d) or not isinstance(last, nn.Conv2d):
        raise ValueError(f"expected texture layers, got {layers}")
    first.weight[:, -noises:] *= LOUDER
    last.weight *= FAINTER


class Part(nn.Module):
    """Layers of a network that are run on their own.

    Args:
        layers: not copied.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.model = layers

    def forward(self, values: Tensor) -> Tensor:
        """Apply the layers."""
        result: Tensor = self.model(values)
        return result


@contextmanager
def held(layers: nn.Module) -> Iterator[None]:
    """Let gradients pass through layers without reaching their weights."""
    trained = [weight for weight in layers.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def slice_noise(channels: int, shape: tuple[int, int], index: int, draw: int = 0) -> np.ndarray:
    """The noise of a slice by its place among those that are computed, whatever part of it is.

    Args:
        channels: of the noise.
        shape: (rows, columns) of the slice.
        index: of the slice.
        draw: another one is another image of the same slice.

    Returns:
        float32 (channels, rows, columns), standard normal.
    """
    generator = np.random.default_rng((index, draw))
    return generator.standard_normal((channels, *shape), dtype=np.float32)


def energy_score(one: Tensor, other: Tensor, truth: Tensor) -> Tensor:
    """How far two draws are from being draws of what the truth is one of.

    The energy score (Gneiting and Raftery, J. Am. Stat. Assoc. 102 (2007) 359-378), here of single
    numbers: mean |draw - truth| - |one - other| / 2. On average it is least where draws and truth
    have one distribution. It is taken of the pixels' values and of the differences between pixels
    at `OFFSETS`, on which texture shows, of images averaged over `SMOOTHED` pixels.

    Args:
        one, other, truth: (N, 1, H, W).
    """
    smooth = [F.avg_pool2d(images, SMOOTHED, stride=1) for images in (one, other, truth)]
    score = _score(*smooth)
    share = DIFFERENCES_SHARE / len(OFFSETS)
    for down, across in OFFSETS:
        parts = (_differences(images, down, across) for images in smooth)
        score = score + share * _score(*parts)
    return score


def _score(one: Tensor, other: Tensor, truth: Tensor) -> Tensor:
    apart = (one - truth).abs() + (other - truth).abs() - (one - other).abs()
    return apart.mean() / 2


def _differences(images: Tensor, down: int, across: int) -> Tensor:
    """Each pixel minus the one `down` rows above it and `across` columns to its left."""
    height, width = images.shape[-2:]
    left, right = max(0, across), max(0, -across)
    here = images[..., down:, left : width - right]
    there = images[..., : height - down, right : width - left]
    return here - there
