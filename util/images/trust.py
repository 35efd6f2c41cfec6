"""How far to trust an enlarged slice: four figures that need no truth.

*Consistency*: what the enlargement's area average differs from its input by. *Flip*: what mirroring
the input changes besides mirroring the result; lung has no preferred side. *Noise gain*: how much
of a little noise added to the input arrives in the result. *Lattice*: how much of the result
repeats from input pixel to input pixel, which no tissue does.

**What fools them**: an image that paints less is calmer in all but the first, and interpolation,
which paints nothing, is best. They tell what is invented, not what is missing.

All work on single slices in HU, inside a mask on the input's grid.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from util.errors import UserError
from util.images.resampling import area_average
from util.images.spectra import faded

NOISE_ADDED = 15.0  # HU, that of a thin slice at a high dose: less than any scan has already
FADE = 2.0  # clinical pixels; the mask's border fades so, or its edge would fill the spectrum
# distance from a harmonic in lines of the spectrum, one over the slice's side: its own, and those
# that it is compared with
AT, BESIDE = 1.5, (3.0, 6.0)
SMALLEST_AREA = 64  # clinical pixels that the spectrum needs to mean anything
Slice = NDArray[np.float32]
Mask = NDArray[Any]


class Lattice(NamedTuple):
    """The grid in an enlarged slice."""

    decibel: float  # power at the grid's harmonics over that beside them, 0 without a grid
    amplitude: float  # HU: root mean square of the pattern that repeats with the input's pixels


class Trust(NamedTuple):
    """The four figures of a slice."""

    consistency: float  # HU
    flip: float  # HU
    noise_gain: float  # HU out for HU in
    lattice: Lattice


def measure_trust(
    enlarge: Callable[[Slice], Slice], image: Slice, mask: Mask, seed: int = 0
) -> Trust:
    """All four figures of what `enlarge` makes of a slice; calls it three times.

    Args:
        enlarge: (rows, columns) in HU -> (rows * scale, columns * scale) in HU.
        image: the slice, HU.
        mask: (rows, columns), non-zero where the figures are taken.
        seed: of the noise that is added.

    Raises:
        UserError: the mask holds too little.
    """
    enlarged = enlarge(image)
    return Trust(
        consistency(enlarged, image, mask),
        flip(enlarge, enlarged, image, mask),
        noise_gain(enlarge, enlarged, image, mask, seed),
        lattice(enlarged, mask),
    )


def consistency(enlarged: Slice, image: Slice, mask: Mask) -> float:
    """Mean absolute difference of the enlargement's area average and its input, HU."""
    difference = area_average(enlarged, _scale(enlarged, mask)) - image
    return float(np.abs(difference[mask != 0]).mean())


def flip(enlarge: Callable[[Slice], Slice], enlarged: Slice, image: Slice, mask: Mask) -> float:
    """Mean absolute difference of the enlargement and the mirrored slice's, mirrored back, HU."""
    mirrored = enlarge(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    return float(np.abs(mirrored - enlarged)[_fine(enlarged, mask)].mean())


def noise_gain(
    enlarge: Callable[[Slice], Slice], enlarged: Slice, image: Slice, mask: Mask, seed: int = 0
) -> float:
    """Deviation of the change that white noise of 15 HU in the slice makes, over 15 HU."""
    change = enlarge(noised(image, seed)) - enlarged
    return float(change[_fine(enlarged, mask)].std()) / NOISE_ADDED


def noised(image: Slice, seed: int = 0) -> Slice:
    """A slice with 15 HU of white noise more."""
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(NOISE_ADDED) * noise


def lattice(enlarged: Slice, mask: Mask) -> Lattice:
    """The grid that input pixels leave in an enlarged slice.

    Its power stands at the harmonics of the input's pixels (1/k, 2/k ... cycles a pixel along both
    axes). It is compared with the spectrum around them, where tissue and noise are as strong: the
    ratio is 1 (0 dB) without a grid. Noise hides a grid from this ratio, not from the amplitude:
    the mean over all input pixels of what lies at the same place in them.

    Args:
        enlarged: (rows * scale, columns * scale), HU.
        mask: (rows, columns), non-zero where it is measured.

    Raises:
        UserError: the mask holds too little.
    """
    scale = _scale(enlarged, mask)
    inside = mask != 0
    if np.count_nonzero(inside) < SMALLEST_AREA:
        raise UserError(
            f"a mask of {np.count_nonzero(inside)} pixels shows no grid: expected "
            f"{SMALLEST_AREA} or more"
        )
    # What varies from input pixel to input pixel is taken away: tissue, not the pattern.
    detail = enlarged - ndimage.uniform_filter(enlarged, scale, mode="nearest")
    cells = detail.reshape(mask.shape[0], scale, mask.shape[1], scale).transpose(0, 2, 1, 3)
    pattern = cells[inside].mean(axis=0, dtype=np.float64)
    amplitude = float((pattern - pattern.mean()).std())

    weight = faded(inside, FADE)
    fine_weight = weight.repeat(scale, axis=0).repeat(scale, axis=1) / weight.sum()
    mean = (enlarged * fine_weight).sum() / fine_weight.sum()
    ratio = _harmonics_to_beside((enlarged - mean) * fine_weight, scale)
    return Lattice(float(10 * np.log10(ratio)), amplitude)


def _harmonics_to_beside(values: Slice, scale: int) -> float:
    """Mean power at the harmonics of the cells over the mean power beside them."""
    rows, columns = values.shape
    spectrum = scipy.fft.fft2(values)
    reach = int(BESIDE[1])
    steps = np.arange(-reach, reach + 1)
    lines = np.hypot(steps[:, None], steps)
    at, beside = lines <= AT, (lines > BESIDE[0]) & (lines <= BESIDE[1])
    sums = np.zeros(2)
    # Sides are whole numbers of cells, so that harmonics fall on the spectrum's lines.
    for down, across in product(range(0, rows, rows // scale), range(0, columns, columns // scale)):
        if down or across:
            near = np.ix_((down + steps) % rows, (across + steps) % columns)
            power = np.abs(spectrum[near]).astype(np.float64) ** 2
            sums += power[at].mean(), power[beside].mean()
    return float(sums[0] / sums[1]) if sums[1] > 0 else 1.0  # nothing is there, and no grid


def _fine(enlarged: Slice, mask: Mask) -> NDArray[np.bool_]:
    scale = _scale(enlarged, mask)
    return (mask != 0).repeat(scale, axis=0).repeat(scale, axis=1)


def _scale(enlarged: Slice, mask: Mask) -> int:
    return enlarged.shape[0] // mask.shape[0]
