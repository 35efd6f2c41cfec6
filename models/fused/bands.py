"""Bands of rows for a convolution and its gradients: what is read, and where gradients go back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.activation import channels_last
from models.fused.output_layer import EDGE, pad_unshuffled, unpad_unshuffled


@dataclass(frozen=True)
class ConvolutionSettings:
    """How a convolution meets its input."""

    # stride, padding: of the convolution; padding is by zeros
    stride: int = 1
    padding: int = 0
    reflect: int = 0  # rows and columns mirrored on each side before it
    shuffled: bool = False  # whether its input goes through PixelShuffle(2)
    # whether it is the output layer on the unshuffled map, which mirrors by itself
    # (models/fused/output_layer.py)
    unshuffled: bool = False
    # transposed, output_padding: of a transposed convolution
    transposed: bool = False
    output_padding: int = 0


@dataclass(frozen=True)
class Band:
    """Rows of a convolution's result and what they are computed from."""

    # first, last: of the result
    first: int
    last: int
    # low, high: of the kept map
    low: int
    high: int
    # above, below: rows that padding adds, since the map ends there
    above: int
    below: int
    # its rows among those of the shuffled kept rows
    cut: slice = field(default_factory=lambda: slice(None))


def cut_into_bands(
    shape: torch.Size, rows: int, geometry: ConvolutionSettings, values: int
) -> list[Band]:
    """Bands of about `values` values of the kept map; one if the result has other rows than that.

    Args:
        shape: (N, C, H, W) of the kept map.
        rows: of the result.
        geometry: of the convolution.
        values: see above; 0 for one band.
    """
    height, per_row = int(shape[2]), shape.numel() // int(shape[2])
    edge = EDGE if geometry.unshuffled else geometry.reflect or geometry.padding
    # Rows of the kept map for each row of the result, as a ratio.
    times, parts = (2, 1) if geometry.unshuffled else (1, 2) if geometry.shuffled else (1, 1)
    if not geometry.unshuffled and rows != height * parts:
        return [Band(0, rows, 0, height, edge, edge)]
    step = values * parts // (per_row * times) // 2 * 2
    step = rows if values == 0 else max(step, 4 * edge, 2)
    bands = []
    for first in range(0, rows, step):
        last = min(first + step, rows)
        top, bottom = first * times - edge, last * times + edge
        end = height * parts
        above, below = max(0, -top), max(0, bottom - end)
        top, bottom = max(0, top), min(end, bottom)
        low, high = top // parts, -(-bottom // parts)
        cut = slice(top - low * parts, bottom - low * parts)
        bands.append(Band(first, last, low, high, above, below, cut))
    return bands


def pad_rows(rows: Tensor, band: Band, geometry: ConvolutionSettings) -> Tensor:
    """What the convolution itself reads of a band: shuffled, and padded on all sides."""
    if geometry.unshuffled:
        right = EDGE + rows.shape[3] % 2
        rows = pad_unshuffled(rows, 2, band.above, band.below)
        return pad_unshuffled(rows, 3, EDGE, right)
    if geometry.shuffled:
        rows = F.pixel_shuffle(rows, 2)[:, :, band.cut]
    if geometry.reflect:
        sides = (geometry.reflect, geometry.reflect, band.above, band.below)
        return F.pad(rows, sides, mode="reflect")
    if geometry.padding and geometry.stride == 1:
        return F.pad(rows, (geometry.padding, geometry.padding, band.above, band.below))
    return rows


def unpad_gradient(
    gradient: Tensor, band: Band, geometry: ConvolutionSettings, width: int
) -> Tensor:
    """The adjoint of `pad_rows`: the gradient of the kept rows from that of what was read.

    Args:
        gradient: of the result of `pad_rows`; changed in place.
        band, geometry: as for `pad_rows`.
        width: columns of the kept map.
    """
    if geometry.unshuffled:
        right = EDGE + width % 2
        gradient = unpad_unshuffled(gradient, 3, EDGE, right)
        return unpad_unshuffled(gradient, 2, band.above, band.below)
    edge = geometry.reflect or (geometry.padding if geometry.stride == 1 else 0)
    if geometry.reflect:
        unpad_mirrored(gradient, 3, edge, edge)
        unpad_mirrored(gradient, 2, band.above, band.below)
    if edge:
        rows, columns = gradient.shape[2] - band.below, gradient.shape[3] - edge
        gradient = gradient[:, :, band.above : rows, edge:columns]
    if geometry.shuffled:
        missing = 2 * (band.high - band.low) - band.cut.stop
        if band.cut.start or missing:
            gradient = F.pad(gradient, (0, 0, band.cut.start, missing))
        gradient = F.pixel_unshuffle(channels_last(gradient), 2)
    return gradient


def unpad_mirrored(gradient: Tensor, dim: int, before: int, after: int) -> None:
    """Add the gradients of mirrored rows or columns to those that they mirror, in place."""
    first, last = before, gradient.shape[dim] - after - 1
    for step in range(1, before + 1):
        gradient.select(dim, first + step).add_(gradient.select(dim, first - step))
    for step in range(1, after + 1):
        gradient.select(dim, last - step).add_(gradient.select(dim, last + step))


def result_shape(
    shape: torch.Size, weight: torch.Size, geometry: ConvolutionSettings
) -> tuple[int, ...]:
    """(N, C, H, W) of the result for a kept map and a kernel of these shapes."""
    g = geometry
    if g.transposed:
        sizes = [
            (length - 1) * g.stride - 2 * g.padding + weight[2] + g.output_padding
            for length in shape[2:]
        ]
        return shape[0], weight[1], *sizes
    if g.unshuffled:
        return shape[0], weight[0], *(-(-length // 2) for length in shape[2:])
    edge = 2 * (g.reflect + g.padding)
    sizes = [
        (length * (2 if g.shuffled else 1) + edge - weight[2]) // g.stride + 1
        for length in shape[2:]
    ]
    return shape[0], weight[0], *sizes


def arguments(geometry: ConvolutionSettings) -> tuple[Any, ...]:
    """Stride, padding, dilation and so on, as aten's convolutions take them."""
    # At stride 1 the zeros are laid around the rows, since bands have their own.
    padding = 0 if geometry.stride == 1 or geometry.unshuffled else geometry.padding
    stride, extra = geometry.stride, geometry.output_padding
    return [stride] * 2, [padding] * 2, [1, 1], geometry.transposed, [extra] * 2, 1
