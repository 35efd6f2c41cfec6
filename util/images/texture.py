"""Radial power spectra: whether an image has the texture of another, wherever its details lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from util.errors import UserError

SMALLEST_EDGE = 8  # pixels
FLOOR = 1e-6  # of the reference's mean power: below it lie rounding and windowing


def radial_power_spectrum(
    image: NDArray[Any], spacing: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power of an image's frequencies by their distance from zero.

    The mean is removed and a Hann window applied in both directions, so that opposite edges,
    which need not fit, leave no cross in the spectrum.

    Args:
        image: (rows, columns), any unit.
        spacing: pixel size in mm.

    Returns:
        Frequencies in cycles/mm, from one wave over the shorter edge to the highest that both
        directions have, and the power there (unit squared times mm^2).

    Raises:
        UserError: an edge is shorter than 8 pixels.
    """
    rows, columns = np.shape(image)
    edge = min(rows, columns)
    if edge < SMALLEST_EDGE:
        raise UserError(
            f"a power spectrum got an image of {rows}x{columns} pixels and needs "
            f"{SMALLEST_EDGE}x{SMALLEST_EDGE}: give larger images"
        )
    window = np.hanning(rows)[:, None] * np.hanning(columns)
    values = np.asarray(image, dtype=np.float64)
    weighted = (values - np.average(values, weights=window)) * window
    power = np.abs(np.fft.fft2(weighted)) ** 2 * spacing**2 / np.square(window).sum()
    distance = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)) * edge
    rings = np.rint(distance).astype(np.intp).ravel()
    count = edge // 2 + 1
    inside = rings < count
    sums = np.bincount(rings[inside], power.ravel()[inside], count)
    means = sums / np.bincount(rings[inside], minlength=count)
    return np.arange(1, count) / (edge * spacing), means[1:]


def spectrum_distance(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """How far the radial power spectra of two images of one grid lie apart, in dB.

    Root of the mean squared difference of 10 log10(power), each frequency weighted alike: 0 for
    the same texture, 3 where the power is twice or half the reference's throughout.

    Raises:
        UserError: shapes differ, or an edge is shorter than 8 pixels.
    """
    if np.shape(image) != np.shape(reference):
        raise UserError(
            f"the image has shape {np.shape(image)}, its reference {np.shape(reference)}: "
            "compare images on the same grid"
        )
    _, power = radial_power_spectrum(image)
    _, wanted = radial_power_spectrum(reference)
    floor = max(FLOOR * wanted.mean(), np.finfo(np.float64).tiny)
    decibel = 10 * np.log10((power + floor) / (wanted + floor))
    return float(np.sqrt(np.mean(decibel**2)))


def spectrum_slope(image: NDArray[Any], spacing: float, low: float, high: float) -> float:
    """Exponent b of power = a * frequency^b between two frequencies in cycles/mm.

    Raises:
        UserError: fewer than three frequencies lie between them, or an edge is shorter than 8.
    """
    frequency, power = radial_power_spectrum(image, spacing)
    inside = (frequency >= low) & (frequency <= high)
    if inside.sum() < 3:
        raise UserError(
            f"{inside.sum()} frequencies lie between {low:g} and {high:g} cycles/mm, expected 3 "
            "at least: give a larger image or a wider range"
        )
    slope, _ = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)
    return float(slope)
