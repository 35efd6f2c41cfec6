from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from util.errors import UserError
from util.images.resampling import area_average, enlarge, interpolation_operator, resize


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (17, 32)])
def test_equals_scipy_zoom_on_the_pixel_area_grid(
    shape: tuple[int, int], scale: int, order: int
) -> None:
    image = np.random.default_rng(0).uniform(-1000, 500, shape).astype(np.float32)
    expected = ndimage.zoom(
        image.astype(np.float64), scale, order=order, mode="grid-mirror", grid_mode=True
    )
    found = enlarge(image, scale, order)
    assert found.dtype == np.float32
    assert found.shape == (shape[0] * scale, shape[1] * scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * 1500)


def test_known_answers() -> None:
    image = np.array([[0.0, 8.0]], dtype=np.float32)
    np.testing.assert_array_equal(enlarge(image, 2, 0), [[0, 0, 8, 8]] * 2)
    # Sample centres at -1/4, 1/4, 3/4 and 5/4 pixels; mirrored beyond the border.
    np.testing.assert_allclose(enlarge(image, 2, 1), [[0, 2, 6, 8]] * 2, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_constant_stays_and_a_flipped_image_gives_a_flipped_result(order: int) -> None:
    np.testing.assert_allclose(enlarge(np.full((5, 7), -812.0), 8, order), -812.0, rtol=1e-5)
    image = np.random.default_rng(1).normal(size=(9, 6))
    flipped = enlarge(image[::-1, ::-1], 4, order)
    np.testing.assert_allclose(flipped, enlarge(image, 4, order)[::-1, ::-1], atol=1e-5)


@pytest.mark.parametrize("order", [0, 1])
def test_centroid_stays_in_place(order: int) -> None:
    image = np.zeros((16, 16), dtype=np.float32)
    image[5, 9] = 1.0
    found = enlarge(image, 8, order)
    centre = np.array(ndimage.center_of_mass(found))
    np.testing.assert_allclose((centre + 0.5) / 8 - 0.5, [5, 9], atol=1e-4)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_averaging_undoes_nearest(scale: int) -> None:
    image = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(area_average(enlarge(image, scale, 0), scale), image, rtol=1e-6)


def test_area_average_known_answer_of_integer_voxels() -> None:
    image = np.array([[1, 3, 10, 10], [5, 7, 10, 30]], dtype=np.int16)
    found = area_average(image, 2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[4, 15]])


def test_the_operator_of_a_size_is_made_once() -> None:
    image = np.random.default_rng(3).normal(size=(48, 64)).astype(np.float32)
    interpolation_operator.cache_clear()
    for _ in range(3):
        assert enlarge(image, 8, 3).shape == (384, 512)
    assert interpolation_operator.cache_info().misses == 2  # of the rows and of the columns


def test_faults_are_named() -> None:
    image = np.zeros((6, 8))
    with pytest.raises(UserError, match=r"slice of 8x6 pixels .* 4x4 blocks.*multiples of 4"):
        area_average(image, 4)
    with pytest.raises(ValueError, match="order 2"):
        enlarge(image, 2, 2)
    with pytest.raises(ValueError, match="scale 0"):
        enlarge(image, 0, 1)
    with pytest.raises(ValueError, match="3 dimensions"):
        enlarge(np.zeros((1, 2, 3)), 2, 1)


@pytest.mark.parametrize(("rows", "columns"), [(30, 20), (7, 11), (24, 40), (29, 39)])
def test_shrinking_averages_over_each_pixels_area(rows: int, columns: int) -> None:
    image = np.random.default_rng(0).normal(size=(30, 40))
    fine = image.repeat(rows, axis=0).repeat(columns, axis=1)  # parts that both grids share
    expected = fine.reshape(rows, 30, columns, 40).mean(axis=(1, 3))
    found = resize(image, rows, columns)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(31, 41), (75, 60), (30, 80)])
def test_enlarging_keeps_a_ramp(rows: int, columns: int) -> None:
    def ramp(height: int, width: int) -> np.ndarray:
        return np.add.outer(
            3.0 * (np.arange(height) + 0.5) / height, 2.0 * (np.arange(width) + 0.5) / width
        )

    found = resize(ramp(30, 40), rows, columns)
    np.testing.assert_allclose(found[2:-2, 2:-2], ramp(rows, columns)[2:-2, 2:-2], atol=1e-5)


def test_resizing_by_a_whole_number_is_the_area_average() -> None:
    image = np.random.default_rng(0).normal(size=(24, 40)).astype(np.float32)
    np.testing.assert_allclose(resize(image, 6, 10), area_average(image, 4), atol=1e-6)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_array_equal(resize(image, 5, 6), image)
