"""Fourier ring correlation on images whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from util.images.resolution import resolution, ring_correlation

WEIGHTS = np.ones((2, 128, 128), np.float32)
TRUTH = np.random.default_rng(0).normal(-800, 100, (2, 128, 128))
SPACING = 0.1


def test_an_image_that_is_the_truth_is_resolved_to_two_pixels() -> None:
    frequency, curve = ring_correlation(TRUTH, TRUTH, WEIGHTS, SPACING)
    np.testing.assert_allclose(curve, 1, atol=1e-5)
    assert frequency[0] == pytest.approx(1 / 12.8)
    assert resolution(frequency, curve) == pytest.approx(2 * SPACING)


def test_a_blur_is_not_seen_and_neither_are_offset_and_scale() -> None:
    blurred = gaussian_filter(TRUTH, (0, 1.0, 1.0), mode="wrap")
    _, curve = ring_correlation(0.5 * blurred + 300, TRUTH, WEIGHTS, SPACING)
    # But for what differs within a ring, the more the less is left.
    np.testing.assert_allclose(curve[:50], 1, atol=0.01)


def test_noise_of_the_truths_own_spectrum_has_no_resolution() -> None:
    noise = np.random.default_rng(1).normal(-800, 100, TRUTH.shape)
    frequency, curve = ring_correlation(noise, TRUTH, WEIGHTS, SPACING)
    assert np.abs(curve[10:]).max() < 0.2
    assert resolution(frequency, curve) == pytest.approx(12.8)  # the field


def test_the_correlation_with_noise_added_is_that_of_its_power() -> None:
    """Signal over signal and noise: the root of 1 / (1 + 0.75) for noise of 3/4 of the power."""
    noise = np.random.default_rng(2).normal(0, 100 * math.sqrt(0.75), TRUTH.shape)
    _, curve = ring_correlation(TRUTH + noise, TRUTH, WEIGHTS, SPACING)
    assert curve[20:].mean() == pytest.approx(1 / math.sqrt(1.75), abs=0.02)


def test_the_resolution_is_where_the_right_frequencies_end() -> None:
    frequency = np.hypot(np.fft.fftfreq(128, SPACING)[:, None], np.fft.fftfreq(128, SPACING))
    known = np.fft.fft2(TRUTH) * (frequency < 2.0)
    other = np.fft.fft2(np.random.default_rng(3).normal(0, 100, TRUTH.shape)) * (frequency >= 2.0)
    mixed = np.fft.ifft2(known + other).real
    frequencies, curve = ring_correlation(mixed, TRUTH, WEIGHTS, SPACING)
    assert resolution(frequencies, curve) == pytest.approx(1 / 2.0, rel=0.03)


def test_what_has_no_weight_does_not_count() -> None:
    weights = WEIGHTS.copy()
    weights[1] = 0
    broken = TRUTH.copy()
    broken[1] = 0
    _, curve = ring_correlation(broken, TRUTH, weights, SPACING)
    np.testing.assert_allclose(curve, 1, atol=1e-5)


def test_a_flat_image_correlates_with_nothing() -> None:
    _, curve = ring_correlation(np.zeros_like(TRUTH), TRUTH, WEIGHTS, SPACING)
    np.testing.assert_array_equal(curve, 0)
