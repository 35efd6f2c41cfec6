"""Fourier ring correlation with a noise-free truth: how fine the detail is that lies in place.

Saxton and Baumeister, J. Microsc. 127 (1982) 127-138. At each frequency the part of the image that
agrees with the truth, in phase and relative strength within the ring, is divided by what both hold:
1 where they agree, 0 where they have nothing to do with each other. Noise, however much it looks
like texture, has the wrong phases and lowers it. **What fools it**: it does not see a filter, since
strength is divided out. A blurred image and its sharpened copy have the same curve, so it stands
beside errors in HU and never alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from util.images.spectra import ring_numbers, ring_sums

# Against a truth without noise 0.5 is where signal and error are equally strong but for a factor
# of 3 (C_ref of Rosenthal and Henderson, J. Mol. Biol. 333 (2003) 721-745).
THRESHOLD = 0.5

Curve = NDArray[np.float64]


def ring_correlation(
    images: NDArray[Any], truths: NDArray[Any], weights: NDArray[Any], spacing: float
) -> tuple[Curve, Curve]:
    """Correlation of slices with their truths, ring by ring, over all slices of a volume.

    Args:
        images, truths: (slices, rows, columns), the same unit.
        weights: the same shape, such as `util.images.spectra.faded`; what is left out has 0.
        spacing: pixel size in mm.

    Returns:
        Frequencies in cycles/mm, from one wave over the shorter edge on, and the correlation there,
        -1 to 1; 0 where one of the two holds nothing.
    """
    rows, columns = images.shape[1:]
    numbers, count = ring_numbers(rows, columns)
    common, of_image, of_truth = np.zeros((3, count))
    for image, truth, weight in zip(images, truths, weights, strict=True):
        if not np.any(weight):
            continue
        first, second = (fft.fft2(_centred(one, weight)) for one in (image, truth))
        common += ring_sums((first * second.conj()).real, numbers, count)
        of_image += ring_sums(np.abs(first) ** 2, numbers, count)
        of_truth += ring_sums(np.abs(second) ** 2, numbers, count)
    both = np.sqrt(of_image * of_truth)
    correlation = np.divide(common, both, out=np.zeros(count), where=both > 0)
    return np.arange(1, count) / (min(rows, columns) * spacing), correlation[1:]


def resolution(frequencies: Curve, correlation: Curve, threshold: float = THRESHOLD) -> float:
    """The finest period in mm down to which the correlation stays above a threshold.

    One over the frequency where the curve first falls below it, between rings by a straight line.

    Args:
        frequencies, correlation: of `ring_correlation`.
        threshold: of the correlation.

    Returns:
        mm; the period of the first ring, the width of the field, where even that lies below, and
        that of the last ring where none does.
    """
    below = np.flatnonzero(correlation < threshold)
    if below.size == 0:
        return float(1 / frequencies[-1])
    first = int(below[0])
    if first == 0:
        return float(1 / frequencies[0])
    above, under = correlation[first - 1], correlation[first]
    share = (above - threshold) / (above - under)
    step = frequencies[first] - frequencies[first - 1]
    return float(1 / (frequencies[first - 1] + share * step))


def _centred(image: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float32]:
    values = np.asarray(image, dtype=np.float32)
    mean = np.float32(np.average(values, weights=weights))
    return (values - mean) * weights
