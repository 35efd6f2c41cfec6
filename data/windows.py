"""Intensity windows: the fixed map between physical values and the networks' [-1, 1].

The windows are chosen once, before training, and travel with the weights, so that testing uses
the very same constants and physical values can be recovered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data.volumes.volume import LARGE_BYTES, Volume
from util.errors import UserError
from util.images.intensity_window import IntensityWindow

Domain = Literal["clinical", "micro"]
Normalization = Literal["window", "minmax"]

DOMAINS: tuple[Domain, ...] = ("clinical", "micro")
NORMALIZATIONS: tuple[Normalization, ...] = ("window", "minmax")

# Published behaviour: micro-CT is clipped to this range before its minimum and maximum are taken.
LARGEST_VALUE = 1e9  # HU or grey values
PUBLISHED_MICRO_RANGE = (0.0, 15000.0)

# Enough for stable 0.1 % and 99.9 % points (2,000 voxels beyond each), 8 MB of float32.
SAMPLED_VOXELS = 2_000_000
SAMPLED_SLICES = 64


# Public setting of the method: lung, soft tissue and part of bone; contrast above is clipped.
CLINICAL_WINDOW = IntensityWindow(-1000.0, 500.0)


@dataclass(frozen=True)
class WindowPolicy:
    """How a volume of either domain gets its window; stored in the checkpoint.

    `normalization` "window" gives every volume of a domain the same fixed window. "minmax" is the
    published behaviour: each volume's own minimum and maximum, micro-CT first clipped to
    [0, 15000]; the two fixed windows are then unused.
    """

    normalization: Normalization
    clinical: IntensityWindow
    micro: IntensityWindow

    def __post_init__(self) -> None:
        if self.normalization not in NORMALIZATIONS:
            raise UserError(
                f"normalization {self.normalization!r} is not known: "
                f"give one of {', '.join(NORMALIZATIONS)}"
            )

    def window_for(self, volume: Volume, domain: Domain) -> IntensityWindow:
        """Window for one volume.

        Args:
            volume: read once, slice by slice, under "minmax"; untouched under "window".
            domain: "clinical" or "micro".

        Raises:
            UserError: "minmax" on a volume whose voxels are all equal.
        """
        if self.normalization == "window":
            return self.clinical if domain == "clinical" else self.micro
        # Of the whole volume, so that a slice's window does not depend on which ones were selected.
        low, high = _value_range(volume.whole or volume)
        if domain == "micro":
            low, high = (float(v) for v in np.clip((low, high), *PUBLISHED_MICRO_RANGE))
        _refuse_constant(volume, low, high)
        return IntensityWindow(low, high)

    def as_dict(self) -> dict[str, Any]:
        """Plain strings and numbers for checkpoints and run records."""
        return {
            "normalization": self.normalization,
            "clinical": self.clinical.as_dict(),
            "micro": self.micro.as_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> WindowPolicy:
        """Inverse of `as_dict`.

        Raises:
            UserError: `stored` is something else.
        """
        try:
            return cls(
                normalization=stored["normalization"],
                clinical=IntensityWindow.from_dict(stored["clinical"]),
                micro=IntensityWindow.from_dict(stored["micro"]),
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the checkpoint's intensity windows are damaged ({type(error).__name__} {error}): "
                "give another one, such as an epoch_N.pt beside it"
            ) from error


def percentile_window(
    volumes: Sequence[Volume], low: float = 0.1, high: float = 99.9
) -> IntensityWindow:
    """Window from `low` to `high` percent of the pooled intensities of all volumes.

    Percentiles instead of extremes, because one metal voxel would otherwise squeeze the rest. At
    most about `SAMPLED_VOXELS` voxels are read, on a fixed grid, each volume counting alike.

    Raises:
        UserError: the two percentiles are equal (constant volumes), or there is no volume.
    """
    if not volumes:
        raise UserError("a window cannot be measured without volumes: give at least one")
    pooled = sampled_voxels(volumes)
    bottom, top = (float(value) for value in np.percentile(pooled, [low, high]))
    _refuse_constant(volumes[0], bottom, top)
    return IntensityWindow(bottom, top)


def sampled_voxels(volumes: Sequence[Volume]) -> np.ndarray:
    """About SAMPLED_VOXELS intensities (n,), on a fixed grid, each volume counting alike."""
    budget = SAMPLED_VOXELS // len(volumes)
    return np.concatenate([part for volume in volumes for part in _sample(volume, budget)])


def parse_windows(words: Sequence[str]) -> dict[str, IntensityWindow | None]:
    """Read `DOMAIN=LOW:HIGH` or `DOMAIN=auto` words of the command line.

    Returns:
        Domain -> window, None standing for "auto" (measure it with `percentile_window`). Only the
        domains named are there.

    Raises:
        UserError: a malformed word, an unknown domain, a domain given twice, or an empty window.
    """
    windows: dict[str, IntensityWindow | None] = {}
    for word in words:
        domain, _, text = word.partition("=")
        if domain not in DOMAINS:
            raise UserError(
                f"window {word!r} names no known domain: give clinical=LOW:HIGH, micro=LOW:HIGH "
                "or DOMAIN=auto"
            )
        if domain in windows:
            raise UserError(f"window for {domain} is given twice ({word!r}): give it once")
        windows[domain] = None if text == "auto" else _parse_range(word, text)
    return windows


def _parse_range(word: str, text: str) -> IntensityWindow:
    low, _, high = text.partition(":")
    try:
        window = IntensityWindow(float(low), float(high))
    except ValueError:
        raise UserError(
            f"window {word!r} is not DOMAIN=LOW:HIGH with two numbers: "
            "write for example clinical=-1000:500 or micro=auto"
        ) from None
    if max(abs(window.low), abs(window.high)) > LARGEST_VALUE:
        raise UserError(
            f"window {word!r} reaches beyond {LARGEST_VALUE:g}, which no scan holds: give HU, or "
            "the grey values of the files"
        )
    return window


def _refuse_constant(volume: Volume, low: float, high: float) -> None:
    if not high > low:
        raise UserError(
            f"{volume.source} holds one intensity only ({low:g} to {high:g}), so it has no range "
            "to scale by: give a fixed window (DOMAIN=LOW:HIGH) or leave the volume out"
        )


def sampled_range(volume: Volume) -> tuple[float, float]:
    """Smallest and largest of a fixed sample of a volume's voxels, for the user's eyes."""
    parts = list(_sample(volume, SAMPLED_VOXELS // 8))
    return min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)


def _value_range(volume: Volume) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    for index in range(volume.num_slices):
        values = volume.read_slice(index)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _sample(volume: Volume, budget: int) -> Iterator[np.ndarray]:
    """Every n-th voxel of evenly spaced slices, at most about `budget` of them."""
    columns, rows, slices = volume.size
    # A slice of a Zarr volume costs all the chunks that it crosses.
    most = SAMPLED_SLICES if volume.array.nbytes <= LARGE_BYTES else SAMPLED_SLICES // 16
    chosen = np.unique(np.linspace(0, slices - 1, min(slices, most)).round().astype(int))
    step = max(1, math.ceil(math.sqrt(rows * columns * len(chosen) / max(budget, 1))))
    for index in chosen:
        yield volume.read_slice(int(index))[::step, ::step].ravel()
