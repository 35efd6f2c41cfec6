"""Linear enlargement: the best that a fixed filter can do, learned or from known blur and noise.

A super-resolution network has to beat these, not interpolation alone: they undo blur and weigh it
against noise as far as anything can that treats every place alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from util.errors import UserError
from util.images.spectra import ring_numbers, ring_sums

EDGE = 11  # pixels of the input that each pixel of the result sees, along rows and columns
RIDGE = 1e-6  # of the mean diagonal: what no input showed gets no weight
Spectrum = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Image = NDArray[np.float32]


class FilterFit:
    """Normal equations of the least-squares filter, gathered image by image.

    Args:
        scale: of the enlargement. Each of the scale x scale places inside an input pixel gets a
            filter of its own (11 x 11 and an offset).
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale
        terms = EDGE**2 + 1
        self._inputs = np.zeros((terms, terms))
        self._products = np.zeros((terms, scale**2))

    def add(self, image: NDArray[Any], truth: NDArray[Any], mask: NDArray[Any]) -> None:
        """Learn from one image.

        Args:
            image: (rows, columns).
            truth: (rows * scale, columns * scale), the same unit.
            mask: (rows, columns), non-zero where it shall be learned from.
        """
        inside = np.asarray(mask).ravel() != 0
        terms = _terms(image)[inside].astype(np.float64)
        wanted = _cells(truth, self._scale)[inside].astype(np.float64)
        self._inputs += terms.T @ terms
        self._products += terms.T @ wanted

    def solve(self) -> LinearFilter:
        """The filter of all that was added.

        Raises:
            UserError: nothing was.
        """
        mean = float(np.trace(self._inputs)) / len(self._inputs)
        if mean == 0:
            raise UserError("a filter was learned from no pixel: give images with lung in them")
        ridge = RIDGE * mean * np.eye(len(self._inputs))
        return LinearFilter(np.linalg.solve(self._inputs + ridge, self._products), self._scale)


class LinearFilter:
    """Enlarges by a filter for each place inside an input pixel.

    Args:
        weights: (122, scale^2), those of the 11 x 11 input pixels row by row, and an offset.
        scale: of the enlargement.
    """

    def __init__(self, weights: NDArray[Any], scale: int) -> None:
        self._weights = weights.astype(np.float32)
        self._scale = scale

    def enlarge(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """(rows, columns) -> float32 (rows * scale, columns * scale), the same unit."""
        rows, columns = np.shape(image)
        scale = self._scale
        cells = (_terms(image) @ self._weights).reshape(rows, columns, scale, scale)
        return cells.transpose(0, 2, 1, 3).reshape(rows * scale, columns * scale)


def _terms(image: NDArray[Any]) -> NDArray[np.float32]:
    """What each pixel's filters see: (rows * columns, 122), the last of them 1."""
    reach = EDGE // 2
    # In thousands of HU, near the offset's 1, so that the equations are well conditioned.
    padded = np.pad(np.asarray(image, np.float32) / 1000, reach, mode="symmetric")
    seen = sliding_window_view(padded, (EDGE, EDGE)).reshape(-1, EDGE**2)
    return np.concatenate([seen, np.ones((len(seen), 1), np.float32)], axis=1)


def _cells(truth: NDArray[Any], scale: int) -> NDArray[Any]:
    """What lies inside each input pixel: (rows * columns, scale^2)."""
    rows, columns = (length // scale for length in truth.shape)
    cells = truth.reshape(rows, scale, columns, scale).transpose(0, 2, 1, 3)
    return cells.reshape(rows * columns, scale**2)


def wiener_gain(
    images: NDArray[Any], truths: NDArray[Any], weights: NDArray[Any], spacing: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Wiener filter of a scanner by its true spectra (Wiener 1949; Gonzalez and Woods, Digital
    Image Processing, 5.8): cross-power of truth and image over the image's power.

    Args:
        images: (slices, rows, columns), what the scanner showed.
        truths: the same shape, area averages of the truth.
        weights: the same shape, such as `util.images.spectra.faded`; what is left out has 0.
        spacing: pixel size in mm.

    Returns:
        Frequencies in cycles/mm from 0 on, and the gain there, 1 at 0.
    """
    rows, columns = images.shape[1:]
    numbers, count = ring_numbers(rows, columns)
    cross, power = np.zeros((2, count))
    for image, truth, weight in zip(images, truths, weights, strict=True):
        if not np.any(weight):
            continue
        seen, wanted = (
            np.fft.fft2((one - np.average(one, weights=weight)) * weight) for one in (image, truth)
        )
        cross += ring_sums((wanted * seen.conj()).real, numbers, count)
        power += ring_sums(np.abs(seen) ** 2, numbers, count)
    gain = np.divide(cross, power, out=np.zeros(count), where=power > 0)
    gain[0] = 1
    return np.arange(count) / (min(rows, columns) * spacing), gain


def wiener_enlarge(image: NDArray[Any], scale: int, pixel: float, gain: Spectrum) -> Image:
    """Wiener deconvolution of a slice onto a finer grid.

    Cosine transforms mirror the image at its borders, and keep pixels in place when the spectrum is
    continued by zeros on a finer grid. The average over the square pixel is undone too.

    Args:
        image: (rows, columns), HU.
        scale: of the enlargement.
        pixel: size in mm.
        gain: of `wiener_gain`, at frequencies in cycles/mm.

    Returns:
        float32 (rows * scale, columns * scale), HU.
    """
    rows, columns = np.shape(image)
    down, across = (np.arange(length) / (2 * length * pixel) for length in (rows, columns))
    average = np.sinc(down * pixel)[:, None] * np.sinc(across * pixel)
    response = gain(np.hypot(down[:, None], across)) / average
    fine = np.zeros((rows * scale, columns * scale))
    fine[:rows, :columns] = dctn(np.asarray(image, np.float64), norm="ortho") * response * scale
    enlarged: Image = idctn(fine, norm="ortho").astype(np.float32)
    return enlarged
