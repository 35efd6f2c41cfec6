from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import ndimage

from util.errors import UserError
from util.images.metrics import (
    inconsistency,
    intensity_distance,
    mean_absolute_error,
    psnr,
    sharpness,
    ssim,
)


def _noisy(sigma: float = 0.1, shape: tuple[int, int] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    reference = generator.uniform(0, 1, shape)
    return reference + generator.normal(0, sigma, shape), reference


def test_psnr_known_answers() -> None:
    reference = np.zeros((8, 8), dtype=np.float32)
    # A constant error of a tenth of the range is 20 dB.
    assert psnr(reference + 0.1, reference, data_range=1.0) == pytest.approx(20.0, abs=1e-5)
    # The same images called a range of 2: 6.02 dB more.
    assert psnr(reference + 0.1, reference, 2.0) == pytest.approx(20 + 20 * np.log10(2), abs=1e-5)
    # int16 HU must not overflow: an error of 1500 in a range of 1500.
    hounsfield = np.full((8, 8), -32000, dtype=np.int16)
    assert psnr(hounsfield + 1500, hounsfield, 1500) == pytest.approx(0.0)


def test_identical_images_have_infinite_psnr_without_a_warning() -> None:
    image = np.random.default_rng(0).normal(size=(12, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert psnr(image, image, 2.0) == float("inf")
        assert ssim(image, image, 2.0) == pytest.approx(1.0)
        assert mean_absolute_error(image, image) == 0.0


def test_scores_do_not_depend_on_the_unit() -> None:
    image, reference = _noisy()
    assert psnr(image * 1500, reference * 1500, 1500) == pytest.approx(psnr(image, reference, 1))
    assert ssim(image * 1500, reference * 1500, 1500) == pytest.approx(ssim(image, reference, 1))
    assert mean_absolute_error(image * 3, reference * 3) == pytest.approx(
        3 * mean_absolute_error(image, reference)
    )


def test_ssim_equals_the_formula() -> None:
    image, reference = _noisy()

    def blur(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 1.5, radius=5)

    mean_x, mean_y = blur(image), blur(reference)
    var_x, var_y = blur(image**2) - mean_x**2, blur(reference**2) - mean_y**2
    covariance = blur(image * reference) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    assert ssim(image, reference, 1.0) == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-9)
    mask = np.zeros(image.shape, dtype=bool)
    mask[:10, 30:] = True
    assert ssim(image, reference, 1.0, mask) == pytest.approx(similarity[mask].mean(), abs=1e-9)


def test_ssim_of_hounsfield_units_in_float32_is_that_of_float64() -> None:
    image, reference = _noisy(0.01)
    image, reference = image * 100 + 30000, reference * 100 + 30000
    exact = ssim(image, reference, 100)
    single = ssim(image.astype(np.float32), reference.astype(np.float32), 100)
    assert single == pytest.approx(exact, abs=1e-3)


def test_more_noise_scores_lower() -> None:
    scores = [(psnr(i, r, 1), ssim(i, r, 1)) for i, r in map(_noisy, (0.05, 0.1, 0.3))]
    assert scores == sorted(scores, reverse=True)


def test_only_the_mask_counts() -> None:
    reference = np.zeros((16, 16))
    image = reference.copy()
    image[:, :8] = 0.1
    image[:, 8:] = 9.0
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:, :8] = 1
    assert psnr(image, reference, 1.0, mask) == pytest.approx(20.0)
    assert mean_absolute_error(image, reference, mask) == pytest.approx(0.1)
    assert mean_absolute_error(image, reference, 1 - mask) == pytest.approx(9.0)


@pytest.mark.parametrize("data_range", [0, -1.0, float("nan"), float("inf")])
def test_data_range_must_be_a_width(data_range: float) -> None:
    image, reference = _noisy()
    for metric in (psnr, ssim):
        with pytest.raises(UserError, match=r"data_range is .* expected a number above 0"):
            metric(image, reference, data_range)


def test_unusable_images_are_named() -> None:
    image = np.zeros((16, 16))
    with pytest.raises(UserError, match=r"shape \(16, 16\), its reference \(16, 15\)"):
        psnr(image, image[:, 1:], 1.0)
    with pytest.raises(UserError, match=r"\(10, 16\) and needs .* at least 11x11"):
        ssim(image[:10], image[:10], 1.0)
    assert ssim(image[:11, :11], image[:11, :11], 1.0) == pytest.approx(1.0)
    with pytest.raises(UserError, match="mask is empty"):
        mean_absolute_error(image, image, image)
    with pytest.raises(UserError, match=r"mask has shape \(3, 3\), the images \(16, 16\)"):
        ssim(image, image, 1.0, np.ones((3, 3)))
    with pytest.raises(UserError, match="no pixels"):
        mean_absolute_error(np.zeros((0, 4)), np.zeros((0, 4)))


def test_an_enlargement_by_repetition_is_consistent() -> None:
    source = np.random.default_rng(0).uniform(-1000, 200, (6, 5))
    repeated = np.kron(source, np.ones((4, 4)))
    assert inconsistency(repeated, source, 4) == pytest.approx(0, abs=1e-3)
    assert inconsistency(repeated + 7, source, 4) == pytest.approx(7, abs=1e-3)
    with pytest.raises(UserError, match=r"shape \(24, 20\) is not 2 times \(6, 5\)"):
        inconsistency(repeated, source, 2)


def test_sharpness_goes_with_contrast_and_blur() -> None:
    image = np.random.default_rng(0).normal(size=(40, 40))
    assert sharpness(image, image) == pytest.approx(1)
    assert sharpness(0.5 * image + 3, image) == pytest.approx(0.5)
    assert sharpness(np.zeros((40, 40)), image) == 0
    half = np.zeros((40, 40))
    half[:, :20] = 1
    mixed = np.where(half > 0, image, 3 * image)
    assert sharpness(mixed, image, np.roll(half, -1, 1) * half) == pytest.approx(1)
    with pytest.raises(UserError, match="the reference is constant"):
        sharpness(image, np.zeros((40, 40)))


def test_intensity_distance_is_how_far_values_move() -> None:
    image = np.random.default_rng(0).normal(size=(30, 30))
    assert intensity_distance(image[::-1], image) == pytest.approx(0, abs=1e-12)
    assert intensity_distance(image + 40, image) == pytest.approx(40)
    mask = np.zeros((30, 30))
    mask[0] = 1
    raised = image.copy()
    raised[0] += 5
    assert intensity_distance(raised, image, mask) == pytest.approx(5)
    assert intensity_distance(raised, image) == pytest.approx(5 / 30, rel=0.1)
