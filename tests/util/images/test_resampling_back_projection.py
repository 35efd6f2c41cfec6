from __future__ import annotations

import numpy as np
import pytest

from util.images.resampling import area_average, back_project, consistency_errors, enlarge

SCALES = (2, 4, 8, 16)


def pair(scale: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A CT-like slice and an enlargement of it that does not average to it."""
    rng = np.random.default_rng(seed)
    image = rng.normal(-700, 250, (13, 21)).astype(np.float32)
    fine = enlarge(image, scale, 3) + rng.normal(20, 60, (13 * scale, 21 * scale))
    return fine.astype(np.float32), image


@pytest.mark.parametrize("scale", SCALES)
def test_the_area_average_becomes_the_input(scale: int) -> None:
    fine, image = pair(scale)
    assert consistency_errors(fine, image, scale).max() > 10
    corrected = back_project(fine, image, scale)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(area_average(corrected, scale), image, atol=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_rounding_costs_half_a_unit_at_most(scale: int) -> None:
    fine, image = pair(scale)
    rounded = np.rint(back_project(fine, image, scale))
    assert consistency_errors(rounded, image, scale).max() < 0.501


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (40, 5)])
def test_any_size_is_taken(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(-700, 250, shape).astype(np.float32)
    fine = rng.normal(-700, 250, (shape[0] * 4, shape[1] * 4)).astype(np.float32)
    np.testing.assert_allclose(area_average(back_project(fine, image, 4), 4), image, atol=1e-3)


def test_what_agrees_already_is_left_alone() -> None:
    fine, image = pair(8)
    once = back_project(fine, image, 8)
    np.testing.assert_allclose(back_project(once, image, 8), once, atol=1e-2)


def test_a_constant_difference_is_removed_as_a_constant() -> None:
    image = np.full((9, 6), -500.0, dtype=np.float32)
    corrected = back_project(np.full((72, 48), -480.0, dtype=np.float32), image, 8)
    np.testing.assert_allclose(corrected, -500.0, atol=1e-2)


def test_no_blocks_show_in_the_correction() -> None:
    """Across the borders of input pixels it is as smooth as inside them."""
    rng = np.random.default_rng(1)
    image = rng.normal(0, 100, (24, 24)).astype(np.float32)
    correction = back_project(np.zeros((192, 192), dtype=np.float32), image, 8)
    jumps = np.abs(np.diff(correction, axis=0)).mean(axis=1)
    border = np.zeros(len(jumps), dtype=bool)
    border[7::8] = True
    # A cubic spline is steepest between the pixels' centres, hence a little above 1.
    assert jumps[border].mean() < 1.6 * jumps[~border].mean()
    blocks = np.abs(np.diff(enlarge(image, 8, 0), axis=0)).mean(axis=1)
    assert blocks[~border].max() == 0  # what nearest interpolation would have done


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_the_correction_does_not_bend_more_at_the_borders_of_pixels(scale: int) -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(0, 100, (24, 24)).astype(np.float32)
    fine = np.zeros((24 * scale, 24 * scale), dtype=np.float32)
    bends = np.abs(np.diff(back_project(fine, image, scale), n=2, axis=0)).mean(axis=1)
    # Entry i bends around row i + 1; the border lies between rows scale - 1 and scale.
    rows = np.arange(1, len(bends) + 1) % scale
    border = (rows == scale - 1) | (rows == 0)
    assert bends[border].max() < 1.5 * bends[~border].max()


def test_errors_are_absolute_differences_on_the_input_grid() -> None:
    fine = np.zeros((4, 6), dtype=np.float32)
    fine[0, 0] = 8
    image = np.array([[1, 0, 0], [0, 0, -3]], dtype=np.float32)
    np.testing.assert_array_equal(consistency_errors(fine, image, 2), [[1, 0, 0], [0, 0, 3]])
