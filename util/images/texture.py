"""Texture: radial power spectra, and what a lung pathologist would measure of airspaces.

They tell whether an image has the texture of another, wherever its details lie. **What fools
them**: noise of the right strength and grain has the right spectrum and breaks long intercepts
into short ones, with nothing in its place. They are read beside the row of a control that is an
image and such noise (`methods/truth/opponents.py`), and never alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from util.errors import UserError
from util.images.spectra import ring_numbers, ring_sums

SMALLEST_EDGE = 8  # pixels
FLOOR = 1e-6  # of the reference's mean power: below it lie rounding and windowing


def radial_power_spectrum(
    image: NDArray[Any], spacing: float = 1.0, weights: NDArray[Any] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power of an image's frequencies by their distance from zero.

    The mean is removed and the weights applied, so that opposite edges, which need not fit, leave
    no cross in the spectrum.

    Args:
        image: (rows, columns), any unit.
        spacing: pixel size in mm.
        weights: (rows, columns) that fade to 0 towards the border, such as those of
            `util.images.spectra.faded`; None for a Hann window in both directions.

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
    window = weights
    if window is None:
        window = np.hanning(rows)[:, None] * np.hanning(columns)
    values = np.asarray(image, dtype=np.float64)
    weighted = (values - np.average(values, weights=window)) * window
    power = np.abs(np.fft.fft2(weighted)) ** 2 * spacing**2 / np.square(window).sum()
    numbers, count = ring_numbers(rows, columns)
    means = ring_sums(power, numbers, count) / ring_sums(np.ones_like(power), numbers, count)
    return np.arange(1, count) / (edge * spacing), means[1:]


def spectrum_distance(
    image: NDArray[Any], reference: NDArray[Any], weights: NDArray[Any] | None = None
) -> float:
    """How far the radial power spectra of two images of one grid lie apart, in dB.

    Root of the mean squared difference of 10 log10(power), each frequency weighted alike: 0 for
    the same texture, 3 where the power is twice or half the reference's throughout. `weights` as
    for `radial_power_spectrum`.

    Raises:
        UserError: shapes differ, or an edge is shorter than 8 pixels.
    """
    if np.shape(image) != np.shape(reference):
        raise UserError(
            f"the image has shape {np.shape(image)}, its reference {np.shape(reference)}: "
            "compare images on the same grid"
        )
    _, power = radial_power_spectrum(image, weights=weights)
    _, wanted = radial_power_spectrum(reference, weights=weights)
    floor = max(FLOOR * wanted.mean(), np.finfo(np.float64).tiny)
    decibel = 10 * np.log10((power + floor) / (wanted + floor))
    return float(np.sqrt(np.mean(decibel**2)))


def airspace_threshold(image: NDArray[Any], mask: NDArray[Any]) -> float:
    """Grey value between airspace and tissue inside a mask (Otsu, IEEE Trans. SMC 9 (1979)).

    Taken from a reference and used for all images that are compared with it.

    Raises:
        UserError: the mask is empty or the image is constant in it.
    """
    values = np.asarray(image)[np.asarray(mask) != 0]
    if values.size == 0 or values.min() == values.max():
        raise UserError(
            "airspaces cannot be told from tissue where the mask is empty or the image constant: "
            "give a mask with parenchyma in it"
        )
    return float(threshold_otsu(values))


def airspace_fraction(image: NDArray[Any], mask: NDArray[Any], threshold: float) -> float:
    """Share of the mask's pixels that are below the threshold, 0 to 1."""
    return float(np.mean(np.asarray(image)[np.asarray(mask) != 0] < threshold))


def mean_linear_intercept(
    image: NDArray[Any], mask: NDArray[Any], threshold: float, spacing: float
) -> float:
    """Mean distance between walls along straight lines, in mm (Dunnill, Thorax 17 (1962) 320-328).

    Test lines are all rows and columns inside the mask; a wall is a run of pixels at or above the
    threshold. In a slice of finite thickness this is the apparent intercept: walls of several
    airspaces behind each other show in one pixel.

    Args:
        image: (..., rows, columns).
        mask: the same shape; only where it is not zero counts.
        threshold: see `airspace_threshold`.
        spacing: pixel size in mm.

    Returns:
        Length of all lines divided by the number of walls that they meet; infinite without walls.

    Raises:
        UserError: the shapes differ.
    """
    if np.shape(image) != np.shape(mask):
        raise UserError(
            f"the image has shape {np.shape(image)}, its mask {np.shape(mask)}: give a mask on "
            "the image's grid"
        )
    inside, tissue = np.asarray(mask) != 0, np.asarray(image) >= threshold
    walls = 0
    for axis in (-1, -2):
        solid = np.moveaxis(inside & tissue, axis, -1)
        walls += int(np.count_nonzero(solid[..., 0]))
        walls += int(np.count_nonzero(solid[..., 1:] & ~solid[..., :-1]))
    length = 2 * np.count_nonzero(inside) * spacing
    return float(length / walls) if walls else float("inf")
