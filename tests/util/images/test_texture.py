"""Radial power spectra on images with a known one."""

from __future__ import annotations

import numpy as np
import pytest
from phantom_helpers import spectrum_slope

from util.errors import UserError
from util.images.texture import radial_power_spectrum, spectrum_distance


def noise(shape: tuple[int, int], exponent: float, seed: int = 0) -> np.ndarray:
    """Noise whose power goes with frequency^exponent."""
    white = np.random.default_rng(seed).normal(size=shape)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    frequency[0, 0] = 1
    return np.fft.ifft2(np.fft.fft2(white) * frequency ** (exponent / 2)).real


def test_a_wave_has_its_power_at_its_frequency() -> None:
    x = np.arange(256)
    wave = np.broadcast_to(np.cos(2 * np.pi * 20 * x / 256), (192, 256))
    frequency, power = radial_power_spectrum(wave, spacing=0.5)
    assert frequency[np.argmax(power)] == pytest.approx(20 / 128, abs=0.5 / 96)
    assert frequency[0] == pytest.approx(1 / 96)
    assert frequency[-1] == pytest.approx(1.0)


def test_white_noise_is_flat_at_its_variance_times_the_pixels_area() -> None:
    image = 3 * np.random.default_rng(0).normal(size=(256, 256)) + 100
    _, power = radial_power_spectrum(image, spacing=0.1)
    assert power.mean() == pytest.approx(9 * 0.01, rel=0.03)
    assert np.abs(power[10:] / 0.09 - 1).max() < 0.6


@pytest.mark.parametrize("exponent", [-3.0, -1.0, 0.0])
def test_the_slope_is_that_of_the_noise(exponent: float) -> None:
    image = noise((256, 256), exponent)
    assert spectrum_slope(image, 0.5, 0.1, 0.8) == pytest.approx(exponent, abs=0.1)


def test_twice_the_power_is_three_decibel_away_and_a_shift_is_nowhere() -> None:
    image = noise((128, 128), -2)
    assert spectrum_distance(image, image) == 0
    assert spectrum_distance(np.sqrt(2) * image, image) == pytest.approx(3.01, abs=0.01)
    assert spectrum_distance(image + 500, image) == pytest.approx(0, abs=1e-6)
    other = noise((128, 128), -2, seed=1)
    assert 0 < spectrum_distance(other, image) < 1.5  # the same texture elsewhere
    assert spectrum_distance(noise((128, 128), 0), image) > 10


def test_a_flat_image_is_far_from_texture_but_finite() -> None:
    image = noise((64, 64), -2)
    assert 20 < spectrum_distance(np.zeros((64, 64)), image) < 200


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UserError, match="7x20 pixels and needs 8x8"):
        radial_power_spectrum(np.zeros((7, 20)))
    with pytest.raises(UserError, match=r"shape \(9, 9\), its reference \(9, 10\)"):
        spectrum_distance(np.zeros((9, 9)), np.zeros((9, 10)))
