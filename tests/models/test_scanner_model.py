"""The scanner of pseudo-pairs: average, blur and noise as stated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.losses import pool
from models.scanner_model import ScannerModel


def test_without_blur_and_noise_it_is_the_area_average() -> None:
    micro = torch.rand(2, 1, 32, 24) * 2 - 1
    assert torch.equal(ScannerModel(4)(micro), pool(micro, 4))


def test_a_point_is_spread_to_the_stated_width() -> None:
    micro = torch.zeros(1, 1, 31, 31)
    micro[0, 0, 15, 15] = 1
    seen = ScannerModel(1, blur=4.0)(micro)[0, 0]
    assert float(seen.sum()) == pytest.approx(1, abs=1e-4)
    assert float(seen[15, 17] / seen[15, 15]) == pytest.approx(0.5, abs=1e-3)
    assert float(seen[17, 15] / seen[15, 15]) == pytest.approx(0.5, abs=1e-3)


def test_flat_images_stay_flat_to_the_border() -> None:
    seen = ScannerModel(2, blur=1.5)(torch.full((1, 1, 16, 20), 0.3))
    torch.testing.assert_close(seen, torch.full((1, 1, 8, 10), 0.3))


@pytest.mark.parametrize("edge", [24, 25])
def test_noise_has_its_deviation_no_mean_and_the_spectrum_of_back_projection(edge: int) -> None:
    torch.manual_seed(0)
    scanner = ScannerModel(1, blur=2.0, noise=0.05)
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
    scanner = ScannerModel(2, noise=0.1)
    micro = torch.zeros(1, 1, 16, 16)
    torch.manual_seed(3)
    first, second = scanner(micro), scanner(micro)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(scanner(micro), first)
    assert float(scanner(micro - 1).min()) >= -1
