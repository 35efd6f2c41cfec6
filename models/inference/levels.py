"""Feature maps read by rows: kept in memory, or computed anew each time they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Affine = tuple[Tensor, Tensor]


class Level(Protocol):
    """A feature map behind norm and activation."""

    height: int  # number of its rows

    def read(self, first: int, last: int) -> Tensor:
        """Rows first <= row < last: (N, C, last - first, W), not to be written to."""
        ...


class StoredLevel:
    """A map that lies in memory; norm and activation are applied when rows are first read.

    A row is finished in place while it is in the processor's cache for the convolution that reads
    it, so that the map travels through main memory once less.

    Args:
        values: (N, C, H, W) as the convolution left them. norm_activate: applies norm, activation
        and what is added to rows (first, last) in place; None
            where the values are finished.
    """

    def __init__(
        self, values: Tensor, norm_activate: Callable[[Tensor, int, int], None] | None
    ) -> None:
        self.values = values
        self.height = int(values.shape[2])
        self._norm_activate = norm_activate
        self._activated_rows = self.height if norm_activate is None else 0

    def read(self, first: int, last: int) -> Tensor:
        """See `Level`."""
        if self._norm_activate is not None and last > self._activated_rows:
            self._norm_activate(
                self.values[:, :, self._activated_rows : last], self._activated_rows, last
            )
            self._activated_rows = last
        return self.values[:, :, first:last]


class RecomputedLevel:
    """A map that memory has no room for: its rows are convolved again at each reading.

    Args:
        height: number of its rows.
        convolve: rows (first, last) as the convolution leaves them.
        norm_activate: applies norm and activation to rows (first, last) in place.
    """

    def __init__(
        self,
        height: int,
        convolve: Callable[[int, int], Tensor],
        norm_activate: Callable[[Tensor, int, int], None],
    ) -> None:
        self.height = height
        self._convolve = convolve
        self._norm_activate = norm_activate

    def read(self, first: int, last: int) -> Tensor:
        """See `Level`."""
        rows = self._convolve(first, last)
        self._norm_activate(rows, first, last)
        return rows


class ShuffledLevel:
    """A level behind PixelShuffle(2): half the channels twice as wide and high, never stored.

    Args:
        source: level of 4c channels.
    """

    def __init__(self, source: Level) -> None:
        self.height = 2 * source.height
        self._source = source

    def read(self, first: int, last: int) -> Tensor:
        """See `Level`."""
        above = first // 2
        rows = F.pixel_shuffle(self._source.read(above, (last + 1) // 2), 2)
        return rows[:, :, first - 2 * above : last - 2 * above]


class BesideLevel:
    """A level with further channels behind its own.

    Args:
        source: the level.
        values: (N, c, H, W), as high and wide.
    """

    def __init__(self, source: Level, values: Tensor) -> None:
        self.height = source.height
        self._source = source
        self._values = values

    def read(self, first: int, last: int) -> Tensor:
        """See `Level`."""
        return torch.cat([self._source.read(first, last), self._values[:, :, first:last]], dim=1)


def norm_activate_rows(
    rows: Tensor, affine: Affine | None, slope: float | None, added: Tensor | None = None
) -> None:
    """Apply norm, activation and residual sum to rows of a map in place, computed in float32.

    Args:
        rows: (N, C, h, W) of any float type.
        affine: norm as (scale, shift), each (N or 1, C, 1, 1); None for no norm.
        slope: of the activation below zero; None for none.
        added: the block's input, which the residual sum adds.
    """
    values = rows.float()  # the same memory where it is float32 already
    if affine is not None:
        torch.addcmul(affine[1], values, affine[0], out=values)
    if slope is not None:
        F.leaky_relu_(values, slope)
    if added is not None:
        values += added
    if rows.dtype != torch.float32:
        rows.copy_(values)


def convolve_rows(
    source: Level, first: int, last: int, weight: Tensor, bias: Tensor, padding: int, reflect: bool
) -> Tensor:
    """Convolve rows of a level with their true neighbours.

    Args:
        source: the level.
        first, last: rows first <= row < last of the result, which has the level's height.
        weight, bias: of the convolution.
        padding: rows and columns on each side; below the level's height where `reflect`.
        reflect: whether the map is mirrored at its ends; else zeros stand there.

    Returns:
        (N, C, last - first, W).
    """
    above, below = max(0, padding - first), max(0, last + padding - source.height)
    rows = source.read(first - padding + above, last + padding - below)
    if reflect:
        rows = F.pad(rows, (padding, padding, above, below), mode="reflect")
        return F.conv2d(rows, weight, bias)
    if above or below:
        rows = F.pad(rows, (0, 0, above, below))
    return F.conv2d(rows, weight, bias, padding=(0, padding))
