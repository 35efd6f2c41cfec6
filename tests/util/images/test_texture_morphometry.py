"""Airspaces and nodules of known size."""

from __future__ import annotations

import numpy as np
import pytest

from util.errors import UserError
from util.images.texture import (
    airspace_fraction,
    airspace_threshold,
    mean_linear_intercept,
)

AIR, TISSUE = -1000.0, 40.0


def grid(pitch: int, wall: int, size: int = 240) -> np.ndarray:
    """Square airspaces, `pitch` pixels from wall to wall."""
    line = np.arange(size) % pitch < wall
    return np.where(line[:, None] | line, TISSUE, AIR)


@pytest.mark.parametrize(("pitch", "wall"), [(8, 1), (12, 3), (24, 4)])
def test_the_intercept_of_a_grid_is_its_pitch(pitch: int, wall: int) -> None:
    image = grid(pitch, wall)
    mask = np.ones(image.shape, np.uint8)
    threshold = airspace_threshold(image, mask)
    assert AIR < threshold < TISSUE
    # Lines within a wall meet none, so the mean over all lines is longer by their share.
    free = 1 - wall / pitch
    expected = 0.0625 * pitch / free
    found = mean_linear_intercept(image, mask, threshold, 0.0625)
    assert found == pytest.approx(expected, rel=0.05)
    assert airspace_fraction(image, mask, threshold) == pytest.approx(free**2)


def test_only_the_mask_counts() -> None:
    image = np.concatenate([grid(8, 1), grid(24, 1)], axis=1)
    mask = np.zeros(image.shape, np.uint8)
    mask[:, 240:] = 1
    alone = mean_linear_intercept(grid(24, 1), np.ones((240, 240)), -500, 0.1)
    assert mean_linear_intercept(image, mask, -500, 0.1) == pytest.approx(alone, rel=1e-9)


def test_slices_are_measured_one_by_one() -> None:
    stack = np.stack([grid(12, 2), grid(12, 2)])
    found = mean_linear_intercept(stack, np.ones(stack.shape), -500, 0.5)
    assert found == mean_linear_intercept(grid(12, 2), np.ones((240, 240)), -500, 0.5)


def test_without_walls_the_intercept_is_infinite() -> None:
    empty = np.full((10, 10), AIR)
    assert mean_linear_intercept(empty, np.ones((10, 10)), -500, 1.0) == np.inf
    assert airspace_fraction(empty, np.ones((10, 10)), -500) == 1


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UserError, match="mask is empty or the image constant"):
        airspace_threshold(grid(8, 1), np.zeros((240, 240)))
    with pytest.raises(UserError, match=r"shape \(2, 2\), its mask \(2, 3\)"):
        mean_linear_intercept(np.zeros((2, 2)), np.zeros((2, 3)), 0, 1.0)
