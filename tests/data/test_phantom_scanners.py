"""The scanner models: units, noise and blur as documented."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.phantom_scanners import ClinicalScanner, MicroScanner, blur, unit_noise


def test_micro_units_map_air_and_water() -> None:
    scanner = MicroScanner(noise=0)
    stored = scanner.acquire(np.array([[[-1000.0, 0.0, -500.0]]]), np.random.default_rng(0))
    assert stored.dtype == np.uint16
    assert stored.ravel().tolist() == [2500, 9000, 5750]


def test_micro_values_lie_in_the_papers_range_and_air_is_not_zero() -> None:
    scanner = MicroScanner()
    air = scanner.acquire(np.full((4, 64, 64), -1000.0), np.random.default_rng(0))
    assert air.min() > 1000
    assert air.mean() == pytest.approx(2500, abs=10)
    assert air.std() == pytest.approx(scanner.noise, rel=0.1)
    assert scanner.acquire(np.full((4, 64, 64), 60.0), np.random.default_rng(0)).max() < 15000


def test_clinical_units_are_hounsfield_and_clipped() -> None:
    scanner = ClinicalScanner(noise=0)
    stored = scanner.acquire(
        np.array([[[-1200.0, -850.4, 40.6, 5000.0]]]), np.random.default_rng(0)
    )
    assert stored.dtype == np.int16
    assert stored.ravel().tolist() == [-1024, -850, 41, 3071]


def test_clinical_noise_has_its_deviation_is_correlated_and_has_no_mean() -> None:
    scanner = ClinicalScanner()
    noise = scanner.acquire(np.zeros((8, 96, 96)), np.random.default_rng(1)).astype(float)
    assert noise.std() == pytest.approx(scanner.noise, rel=0.05)
    assert abs(noise.mean()) < 0.5
    near = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    between_slices = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert 0.3 < near < 0.9
    assert abs(between_slices) < 0.05
    # No noise at frequency zero: means over wide regions hardly scatter.
    blocks = noise.reshape(8, 4, 24, 4, 24).mean(axis=(2, 4))
    assert blocks.std() < scanner.noise / 24


def test_noise_repeats_by_generator() -> None:
    first, second = (
        unit_noise((3, 20, 20), np.random.default_rng(4), (0.5, 0.5, 0.5), None) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_blur_has_the_stated_width_and_keeps_the_sum() -> None:
    scanner = ClinicalScanner(psf_fwhm=2.0)
    point = np.zeros((1, 61, 61))
    point[0, 30, 30] = 1
    spread = blur(point, scanner.psf_sigma[::-1])
    assert spread.sum() == pytest.approx(1, abs=1e-3)
    profile = spread[0, 30] / spread.max()
    # Full width at half maximum: 2 mm are 4 pixels.
    assert profile[30 + 2] == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(blur(point, (0.0, 0.0, 0.0)), point)


def test_spacing_and_psf_follow_the_voxel() -> None:
    assert MicroScanner().spacing == (0.0625, 0.0625, 0.0625)
    assert ClinicalScanner().spacing == (0.5, 0.5, 1.0)
    assert ClinicalScanner().psf_sigma[2] == 0
    halved = replace(MicroScanner(), voxel=0.03125)
    assert halved.psf_sigma[0] == pytest.approx(2 * MicroScanner().psf_sigma[0])
