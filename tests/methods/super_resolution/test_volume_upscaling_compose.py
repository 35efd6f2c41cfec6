from __future__ import annotations

import numpy as np
import pytest

from data.windows import CLINICAL_WINDOW
from methods.super_resolution.volume_upscaling import compose_slice
from util.images.resampling import enlarge


def planes(size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A super-resolved plane of -500 HU and an interpolated one of -700 HU."""
    return np.full((size, size), -500, np.float32), np.full((size, size), -700, np.float32)


def test_without_a_mask_super_resolution_stands_everywhere() -> None:
    sr, interpolated = planes()
    np.testing.assert_array_equal(compose_slice(sr, interpolated, CLINICAL_WINDOW, None), sr)


@pytest.mark.parametrize("value", [501.0, 1400.0, 3071.0, -1001.0, -1024.0])
@pytest.mark.parametrize("masked", [False, True])
def test_values_outside_the_window_are_carried_over(value: float, masked: bool) -> None:
    sr, interpolated = planes()
    interpolated[2:4, 5] = value
    mask = np.ones((4, 4), dtype=np.uint8) if masked else None
    result = compose_slice(sr, interpolated, CLINICAL_WINDOW, mask)
    assert (result[2:4, 5] == value).all()
    result[2:4, 5] = -500
    np.testing.assert_array_equal(result, sr)


@pytest.mark.parametrize("end", [-1000.0, 500.0])
def test_no_edge_shows_where_values_reach_the_windows_end(end: float) -> None:
    sr = np.full((1, 101), -500, np.float32)
    inwards = np.linspace(-20, 80, 101, dtype=np.float32)[None]  # HU, 1 a pixel
    interpolated = end + (inwards if end < 0 else -inwards)
    result = compose_slice(sr, interpolated, CLINICAL_WINDOW, None)
    np.testing.assert_array_equal(result[:, :21], interpolated[:, :21])
    np.testing.assert_array_equal(result[:, 45:], sr[:, 45:])
    np.testing.assert_allclose(result[0, 20:46], end + (-500 - end) * np.arange(26) / 25, atol=25)
    assert np.abs(np.diff(result)).max() < 1.1 * abs(-500 - end) / 25


def test_outside_the_mask_interpolation_stands() -> None:
    sr, interpolated = planes(32)
    mask = np.zeros((8, 8), dtype=bool)
    mask[:, 4:] = True
    result = compose_slice(sr, interpolated, CLINICAL_WINDOW, mask)
    # The border lies at column 16; one input pixel of 4 is mixed, half on either side.
    assert (result[:, :14] == -700).all()
    assert (result[:, 18:] == -500).all()
    mixed = result[0, 13:19]
    assert (np.diff(mixed) > 0).any()
    assert (np.diff(mixed) >= 0).all()
    np.testing.assert_allclose(mixed[1:5], -700 + 200 * np.array([1, 3, 5, 7]) / 8)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_mix_is_the_linear_enlargement_of_the_mask(scale: int) -> None:
    rng = np.random.default_rng(scale)
    mask = rng.random((6, 7)) < 0.5
    sr, interpolated = rng.uniform(-900, 400, (2, 6 * scale, 7 * scale)).astype(np.float32)
    share = enlarge(mask.astype(np.float32), scale, order=1)
    expected = share * sr + (1 - share) * interpolated
    result = compose_slice(sr, interpolated, CLINICAL_WINDOW, mask)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("value", [1, 2, 255])
def test_any_non_zero_mask_value_counts_as_lung(value: int) -> None:
    sr, interpolated = planes()
    mask = np.full((4, 4), value, dtype=np.uint8)
    np.testing.assert_array_equal(compose_slice(sr, interpolated, CLINICAL_WINDOW, mask), sr)


def test_an_empty_mask_leaves_interpolation_alone() -> None:
    sr, interpolated = planes()
    mask = np.zeros((4, 4), dtype=np.uint8)
    result = compose_slice(sr, interpolated, CLINICAL_WINDOW, mask)
    np.testing.assert_array_equal(result, interpolated)
