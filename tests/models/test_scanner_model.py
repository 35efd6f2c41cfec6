"""The scanner of pseudo-pairs: average, blur and noise as stated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.losses import pool
from models.scanner_model import (
    FixedScanner,
    RandomScanner,
    ScannerRanges,
    gaussian_transfer,
    transfer,
)
from util.images.point_spread import FWHM_TO_SIGMA, HALF_OF_GAUSSIAN

RANGES = ScannerRanges((0, 3.2), (2, 2), sharpening=(0, 1), noise=(0, 0.1), calibration=0.01)
NONE = ScannerRanges((0, 0), (2, 2), sharpening=(0, 0), noise=(0, 0), calibration=0)


def test_without_blur_and_noise_it_is_the_area_average() -> None:
    micro = torch.rand(2, 1, 32, 24) * 2 - 1
    assert torch.equal(FixedScanner(4)(micro), pool(micro, 4))


def test_a_point_is_spread_to_the_stated_width() -> None:
    micro = torch.zeros(1, 1, 31, 31)
    micro[0, 0, 15, 15] = 1
    seen = FixedScanner(1, blur=4.0)(micro)[0, 0]
    assert float(seen.sum()) == pytest.approx(1, abs=1e-4)
    assert float(seen[15, 17] / seen[15, 15]) == pytest.approx(0.5, abs=1e-3)
    assert float(seen[17, 15] / seen[15, 15]) == pytest.approx(0.5, abs=1e-3)


def test_flat_images_stay_flat_to_the_border() -> None:
    seen = FixedScanner(2, blur=1.5)(torch.full((1, 1, 16, 20), 0.3))
    torch.testing.assert_close(seen, torch.full((1, 1, 8, 10), 0.3))


@pytest.mark.parametrize("edge", [24, 25])
def test_noise_has_its_deviation_no_mean_and_the_spectrum_of_back_projection(edge: int) -> None:
    torch.manual_seed(0)
    scanner = FixedScanner(1, blur=2.0, noise=0.05)
    noise = scanner(torch.zeros(400, 1, edge, edge)).numpy()[:, 0]
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    assert np.abs(noise.mean(axis=(1, 2))).max() < 1e-6
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(edge)] * 2))
    sigma = 2.0 / math.sqrt(8 * math.log(2))
    expected = frequency * np.exp(-4 * (np.pi * sigma * frequency) ** 2)
    found, wanted = power / power.sum(), expected / expected.sum()
    np.testing.assert_allclose(found, wanted, atol=0.25 * wanted.max())


def test_noise_is_new_each_time_and_repeats_by_seed() -> None:
    scanner = FixedScanner(2, noise=0.1)
    micro = torch.zeros(1, 1, 16, 16)
    torch.manual_seed(3)
    first, second = scanner(micro), scanner(micro)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(scanner(micro), first)
    assert float(scanner(micro - 1).min()) >= -1


def edge_image(count: int) -> torch.Tensor:
    """A step from -0.5 to 0.5 in each of `count` images of 32 x 32."""
    images = torch.full((count, 1, 32, 32), -0.5)
    images[..., 16:] = 0.5
    return images


def test_a_random_scanner_of_empty_ranges_is_the_area_average() -> None:
    micro = torch.rand(2, 1, 32, 24) * 1.8 - 0.9
    torch.testing.assert_close(RandomScanner(4, NONE)(micro), pool(micro, 4), atol=1e-6, rtol=0)


def test_a_random_kernel_blurs_as_far_as_a_fixed_one_of_its_width() -> None:
    torch.manual_seed(1)
    images = edge_image(40)
    seen = RandomScanner(1, replace(NONE, blur=(2.0, 2.0)))(images)
    expected = FixedScanner(1, blur=2.0)(images[:1])
    sharp = (seen - images).abs().amax((1, 2, 3)) < 1e-5
    assert 2 < int(sharp.sum()) < 20  # one in five stays as it is
    torch.testing.assert_close(
        seen[~sharp], expected.expand(int((~sharp).sum()), -1, -1, -1), atol=2e-3, rtol=0
    )


def test_sharp_kernels_overshoot_and_keep_flat_regions() -> None:
    torch.manual_seed(0)
    scanner = RandomScanner(1, replace(NONE, sharpening=(1.0, 1.0)))
    seen = scanner(edge_image(40))
    overshoots = seen.amax((1, 2, 3)) > 0.6
    assert 8 < int(overshoots.sum()) < 32  # half of them
    torch.testing.assert_close(seen[..., 4], torch.full_like(seen[..., 4], -0.5), atol=1e-2, rtol=0)


def test_each_patch_has_a_noise_of_its_own() -> None:
    torch.manual_seed(0)
    noise = RandomScanner(1, replace(NONE, noise=(0.0, 0.1)))(torch.zeros(400, 1, 24, 24))
    deviation = noise.std((1, 2, 3))
    assert 50 < int((deviation == 0).sum()) < 110  # one in five has none
    assert float(deviation.max()) == pytest.approx(0.1, rel=0.3)
    assert float(deviation.median()) == pytest.approx(0.045, rel=0.2)
    power = torch.fft.rfft2(noise[deviation > 0]).abs().square().mean(1)
    low, high = power[:, 1:4, 1:4].mean((1, 2)), power[:, 9:15, 9:].mean((1, 2))
    ratio = high / low
    # White, blurred and ramp-filtered noise are all there.
    assert float(ratio.quantile(0.1)) < 0.1
    assert float(ratio.quantile(0.9)) > 2


def test_errors_of_calibration_stay_within_their_bound() -> None:
    torch.manual_seed(0)
    flat = torch.full((200, 1, 8, 8), 0.2)
    seen = RandomScanner(1, replace(NONE, calibration=0.01))(flat)[:, 0, 0, 0]
    assert float((seen - 0.2).abs().max()) <= 0.01 + 0.012 + 1e-6
    assert float(seen.std()) > 0.005


def test_random_scanners_repeat_by_seed_and_stay_in_range() -> None:
    scanner = RandomScanner(8, RANGES)
    micro = torch.rand(3, 1, 64, 64) * 2 - 1
    torch.manual_seed(3)
    first, second = scanner(micro), scanner(micro)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(scanner(micro), first)
    assert float(scanner(torch.ones(8, 1, 64, 64)).max()) <= 1


@pytest.mark.parametrize("steepness", [1.5, 2.0, 4.0])
def test_the_mtf_halves_where_that_of_a_gaussian_does(steepness: float) -> None:
    frequency = torch.tensor([0.0, 0.25, 0.5])
    width = torch.tensor(HALF_OF_GAUSSIAN / 0.25)
    found = transfer(frequency, width, torch.tensor(steepness))
    expected = [1.0, 0.5, 0.5 ** (2.0**steepness)]
    torch.testing.assert_close(found, torch.tensor(expected))
    gaussian = gaussian_transfer(frequency, width * FWHM_TO_SIGMA)
    assert torch.allclose(found, gaussian) == (steepness == 2)


def test_around_a_known_scanner_every_patch_has_its_blur_and_noise() -> None:
    ranges = replace(RANGES, blur=(2, 2), noise=(0.04, 0.04), calibration=0, known=True)
    torch.manual_seed(0)
    seen = RandomScanner(1, ranges)(torch.zeros(200, 1, 24, 24)).numpy()[:, 0]
    assert seen.std(axis=(1, 2)) == pytest.approx(np.full(200, 0.04), rel=0.25)
    power = (np.abs(np.fft.fft2(seen)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(24)] * 2))
    expected = frequency * np.exp(-4 * (np.pi * 2 * FWHM_TO_SIGMA * frequency) ** 2)
    found, wanted = power / power.sum(), expected / expected.sum()
    np.testing.assert_allclose(found, wanted, atol=0.25 * wanted.max())
    point = torch.zeros(50, 1, 25, 25)
    point[:, 0, 12, 12] = 1
    spread = RandomScanner(1, replace(ranges, noise=(0, 0)))(point)[:, 0]
    assert float((spread[:, 12, 13] / spread[:, 12, 12]).max()) == pytest.approx(0.5, abs=0.02)
