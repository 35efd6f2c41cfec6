"""Fading borders and rings of frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from util.images.spectra import faded, ring_numbers, ring_sums


def test_a_mask_fades_inwards_and_at_the_images_border() -> None:
    weights = faded(np.ones((64, 64)), 3)
    assert weights[32, 32] == pytest.approx(1, abs=1e-3)
    assert weights[0].max() < 0.05
    inside = np.zeros((64, 64), bool)
    inside[:, :32] = True
    weights = faded(inside, 3)
    assert weights[32, 16] == pytest.approx(1, abs=1e-2)
    assert weights[:, 32:].max() < 0.05


def test_a_mask_too_thin_to_fade_inwards_still_counts() -> None:
    inside = np.zeros((32, 32), bool)
    inside[16] = True
    assert faded(inside, 4)[16].min() > 0


@pytest.mark.parametrize("shape", [(32, 32), (32, 48), (33, 20)])
def test_a_wave_lies_in_the_ring_of_its_number(shape: tuple[int, int]) -> None:
    rows, columns = shape
    numbers, count = ring_numbers(rows, columns)
    assert count == min(shape) // 2 + 1
    waves = 5
    along = np.arange(columns) * waves / columns
    power = np.abs(np.fft.fft2(np.tile(np.cos(2 * np.pi * along), (rows, 1)))) ** 2
    sums = ring_sums(power, numbers, count)
    assert np.argmax(sums) == round(waves * min(shape) / columns)
    assert sums.max() == pytest.approx(power.sum(), rel=1e-6)
