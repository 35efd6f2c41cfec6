"""Image quality against a reference, always with a stated data range.

**What fools them**: of squared and absolute errors and SSIM, an image that leaves out what it is
not sure of, since the mean of what could be there has the smallest error; of sharpness and
histograms, noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import sobel
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from util.errors import UserError
from util.images.resampling import area_average

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11  # pixels: what scikit-image cuts a Gaussian of sigma 1.5 to (3.5 sigma a side)


def psnr(
    image: NDArray[Any],
    reference: NDArray[Any],
    data_range: float,
    mask: NDArray[Any] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(data_range^2 / mean squared error).

    Args:
        image, reference: the same shape and unit.
        data_range: width of the intensity window in that unit (2 for [-1, 1], 1500 for the HU
            window [-1000, 500]). Never taken from the data: scores would not be comparable.
        mask: the same shape; only where it is not zero counts.

    Returns:
        dB; infinite where the two are identical, which `util.files.write_json` writes as "inf".

    Raises:
        UserError: shapes differ, `data_range` is not above 0, or the mask is empty.
    """
    image, reference = _pair(image, reference, mask)
    _check_range(data_range)
    with np.errstate(divide="ignore"):  # identical images: infinity is the answer
        return float(peak_signal_noise_ratio(reference, image, data_range=data_range))


def ssim(
    image: NDArray[Any],
    reference: NDArray[Any],
    data_range: float,
    mask: NDArray[Any] | None = None,
) -> float:
    """Structural similarity (Wang et al., IEEE TIP 13(4), 2004), mean of the map; 1 is equal.

    Gaussian weights of sigma 1.5 in an 11x11 window, K1 = 0.01, K2 = 0.03, population variance:
    the paper's own settings. The first term compares means, so that SSIM, unlike PSNR, depends on
    where zero lies: to compare figures, shift both images so that the window's low end is 0.

    Args:
        image, reference: (rows, columns), the same shape and unit.
        data_range: as for `psnr`.
        mask: (rows, columns); the mean is taken over the map where it is not zero, the image's
            border (mirrored there) included. Without a mask the border of 5 pixels is left out.

    Raises:
        UserError: shapes differ, the image is smaller than the window, `data_range` is not above
            0, or the mask is empty.
    """
    _pair(image, reference, mask)
    similarity = ssim_map(image, reference, data_range)
    if mask is None:
        border = SSIM_WINDOW // 2
        return float(similarity[border:-border, border:-border].mean())
    return float(similarity[np.asarray(mask) != 0].mean())


def ssim_map(
    image: NDArray[Any], reference: NDArray[Any], data_range: float
) -> NDArray[np.float64]:
    """The map that `ssim` is the mean of, as large as the images; arguments as there."""
    _pair(image, reference, None)
    _check_range(data_range)
    refuse_too_small(np.shape(image), "an image")
    # float64: the variances are differences of large squares when the values are HU.
    _, similarity = structural_similarity(
        np.asarray(reference, dtype=np.float64),
        np.asarray(image, dtype=np.float64),
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    result: NDArray[np.float64] = similarity
    return result


def refuse_too_small(shape: tuple[int, ...], name: str) -> None:
    """Refuse a shape other than (rows, columns) that hold the window of SSIM.

    Raises:
        UserError: says what `name` measures.
    """
    if len(shape) != 2 or min(shape) < SSIM_WINDOW:
        raise UserError(
            f"SSIM got {name} of shape {shape} and needs (rows, columns) of at least "
            f"{SSIM_WINDOW}x{SSIM_WINDOW} pixels, its window: give larger images"
        )


def mean_absolute_error(
    image: NDArray[Any], reference: NDArray[Any], mask: NDArray[Any] | None = None
) -> float:
    """Mean of |image - reference| in the images' own unit (HU stay HU), over the mask if given.

    Raises:
        UserError: shapes differ or the mask is empty.
    """
    image, reference = _pair(image, reference, mask)
    return float(np.abs(image - reference).mean())


def inconsistency(image: NDArray[Any], source: NDArray[Any], scale: int) -> float:
    """Mean absolute difference of an enlargement's area average from what it was made of.

    Args:
        image: (rows * scale, columns * scale).
        source: (rows, columns), the same unit.
        scale: of the enlargement.

    Raises:
        UserError: the sizes do not fit.
    """
    rows, columns = np.shape(source)
    if np.shape(image) != (rows * scale, columns * scale):
        raise UserError(
            f"an image of shape {np.shape(image)} is not {scale} times {np.shape(source)}: give "
            "an image and what it was enlarged from"
        )
    average = area_average(np.asarray(image, dtype=np.float32), scale)
    return mean_absolute_error(average, source)


def sharpness(
    image: NDArray[Any], reference: NDArray[Any], mask: NDArray[Any] | None = None
) -> float:
    """Mean gradient (Sobel) of an image over that of its reference: 1 is as sharp, 0 is flat.

    Noise counts as sharp too, so read it beside the power spectrum's distance.

    Args:
        image, reference: (rows, columns), the same unit.
        mask: (rows, columns); only where it is not zero counts.

    Raises:
        UserError: shapes differ, the mask is empty, or the reference is flat.
    """
    _pair(image, reference, mask)
    inside = np.ones(np.shape(image), bool) if mask is None else np.asarray(mask) != 0
    steep, wanted = (
        float(sobel(np.asarray(one, dtype=np.float64))[inside].mean()) for one in (image, reference)
    )
    if wanted == 0:
        raise UserError("the reference is constant: sharpness has nothing to be measured against")
    return steep / wanted


def intensity_distance(
    image: NDArray[Any], reference: NDArray[Any], mask: NDArray[Any] | None = None
) -> float:
    """Distance of two images' histograms wherever the values lie, in their unit.

    Wasserstein distance of first order: how far values must move on average for one distribution
    to become the other.

    Raises:
        UserError: shapes differ or the mask is empty.
    """
    first, second = _pair(image, reference, mask)
    # Of as many values on both sides the n-th moves to the n-th.
    return float(np.abs(np.sort(first, axis=None) - np.sort(second, axis=None)).mean())


def _pair(
    image: NDArray[Any], reference: NDArray[Any], mask: NDArray[Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64, cut down to the mask (one-dimensional then)."""
    if np.shape(image) != np.shape(reference):
        raise UserError(
            f"the image has shape {np.shape(image)}, its reference {np.shape(reference)}: "
            "compare images on the same grid"
        )
    if np.size(image) == 0:
        raise UserError(f"images of shape {np.shape(image)} hold no pixels: nothing to compare")
    first, second = np.asarray(image, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if mask is None:
        return first, second
    inside = np.asarray(mask) != 0
    if inside.shape != first.shape:
        raise UserError(
            f"the mask has shape {inside.shape}, the images {first.shape}: "
            "give a mask on the images' grid"
        )
    if not inside.any():
        raise UserError("the mask is empty: give one that covers a part of the image, or none")
    return first[inside], second[inside]


def _check_range(data_range: float) -> None:
    if not (math.isfinite(data_range) and data_range > 0):
        raise UserError(
            f"data_range is {data_range}, expected a number above 0: "
            "give the width of the intensity window"
        )
