"""What a scan is like: known blur and noise are found again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from data.scan_properties import ScanProperties, beyond, measure_scan, noise_of, point_spread_of
from data.volumes.volume import Volume
from util.images.point_spread import FWHM_TO_SIGMA

FINE = 8


def vessels(blur: float, noise: float = 0.0) -> np.ndarray:
    """Vessels across in lung, (96, 96) in HU, as a scanner of that blur and noise sees them."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[: 96 * FINE, : 96 * FINE] / FINE
    fine = np.full(rows.shape, -850.0, np.float32)
    for row, column, radius in generator.uniform((4, 4, 1), (92, 92, 3), (60, 3)):
        fine[np.hypot(rows - row, columns - column) < radius] = 40
    average = fine.reshape(96, FINE, 96, FINE).mean((1, 3))
    seen = ndimage.gaussian_filter(average, blur * FWHM_TO_SIGMA)
    return seen + noise * generator.standard_normal(seen.shape).astype(np.float32)


def volume_of(image: np.ndarray, *spacing: float) -> Volume:
    return Volume(np.stack([image] * 3), np.diag([*spacing, 1.0]), "scan.nii")


@pytest.mark.parametrize("blur", [0.0, 1.2, 2.0, 2.8])
def test_the_point_spread_is_found_again(blur: float) -> None:
    found = point_spread_of(vessels(blur))
    assert found == pytest.approx(blur, abs=0.45)


def test_noise_hardly_changes_the_point_spread() -> None:
    assert point_spread_of(vessels(2.0, 25.0)) == pytest.approx(2.0, abs=0.45)


@pytest.mark.parametrize("noise", [10.0, 25.0, 60.0])
def test_the_noise_is_found_again(noise: float) -> None:
    image = vessels(1.2, noise)
    assert noise_of(image, np.ones(image.shape, bool)) == pytest.approx(noise, rel=0.25)


def test_clipped_air_has_no_noise_to_look_at() -> None:
    air = np.full((20, 20), -1024.0, np.float32)
    assert noise_of(air, np.ones(air.shape, bool)) is None
    assert point_spread_of(air) is None


def test_a_scan_is_measured_inside_its_mask_with_its_spacing() -> None:
    image = vessels(2.0, 20.0)
    image[:48] = -850  # no noise here, outside the mask
    mask = np.zeros((3, 96, 96), bool)
    mask[:, 50:] = True
    scan = measure_scan(volume_of(image, 0.7, 0.7, 1.25), mask)
    assert (scan.pixel_size, scan.slice_spacing) == (pytest.approx(0.7), 1.25)
    assert scan.noise == pytest.approx(20.0, rel=0.25)


def test_what_weights_do_not_know_is_named() -> None:
    known = {"pixel_size": [0.4, 0.9], "slice_spacing": [0.5, 0.5], "noise": [0.0, 75.0]}
    scan = ScanProperties(pixel_size=0.98, slice_spacing=0.5, point_spread=9.0, noise=100.0)
    assert beyond(scan, known) == ["pixels of 0.98 mm (0.4 to 0.9)", "noise of 100 HU (0 to 75)"]
    assert beyond(scan._replace(pixel_size=0.92, noise=88.0), known) == []
    assert beyond(ScanProperties(None, 1.25, None, None), known) == ["slices every 1.25 mm (0.5)"]
    assert beyond(ScanProperties(None, 1.0, None, None), known) == []  # twice as far is no matter
