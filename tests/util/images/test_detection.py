"""Ridges, and how marks are compared with what is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from util.images.detection import Structures, ridges, thinner_than, within

SHAPE = (2, 96, 96)
LINES = np.zeros(SHAPE, bool)
LINES[:, 20] = LINES[:, 60] = True
NONE = np.zeros(SHAPE, bool)
IMAGE = np.where(LINES, 0.0, -900.0)


def found(image: np.ndarray, others: np.ndarray = NONE) -> tuple[float, float, float]:
    return Structures(LINES, others, ridges(IMAGE, 2.0), 4).found_by(ridges(image, 2.0))


def test_lines_are_found_where_they_are() -> None:
    assert found(IMAGE) == (1, 1, 1)


@pytest.mark.parametrize("change", ["contrast", "brightness", "negative offset"])
def test_contrast_and_brightness_win_and_lose_nothing(change: str) -> None:
    faint = {"contrast": IMAGE * 0.01, "brightness": IMAGE + 500, "negative offset": IMAGE - 50}
    blurred = gaussian_filter(faint[change], (0, 3, 3))
    assert found(blurred) == (1, 1, 1)


def test_lines_elsewhere_are_not() -> None:
    moved = np.roll(IMAGE, 12, axis=1)
    assert found(moved).f1 == 0  # type: ignore[attr-defined]
    near = np.roll(IMAGE, 2, axis=1)
    assert found(near) == (1, 1, 1)


def test_one_of_two_lines_is_half_of_them() -> None:
    half = np.where(LINES, -900.0, -900.0)
    half[:, 20] = 0
    precision, recall, _ = found(half)
    assert precision == 1
    assert recall == pytest.approx(0.5)


def test_noise_finds_what_chance_finds() -> None:
    noise = np.random.default_rng(0).normal(-900, 100, SHAPE)
    assert found(noise)[0] == pytest.approx(18 / 96, abs=0.12)  # nine rows around each line
    # Noise over faint lines costs precision and recall.
    over = found(gaussian_filter(IMAGE * 0.2, (0, 1, 1)) + 100 * (noise / 100 + 9))
    assert over[2] < 0.6


def test_other_bright_things_are_not_counted() -> None:
    with_vessel = IMAGE.copy()
    with_vessel[:, 40, 30:60] = 500
    vessel = NONE.copy()
    vessel[:, 40, 30:60] = True
    assert found(with_vessel)[0] < 1
    assert found(with_vessel, vessel) == (1, 1, 1)


def test_a_flat_image_marks_nothing_and_nothing_wanted_is_not_scored() -> None:
    assert found(np.full(SHAPE, -900.0)) == (0, 0, 0)
    nothing = Structures(NONE, NONE, ridges(IMAGE, 2.0), 4).found_by(ridges(IMAGE, 2.0))
    assert all(math.isnan(value) for value in nothing)


def test_the_truth_finds_all_that_it_shows_of_the_labels() -> None:
    """One labelled line is not in the truth's slice, and there is a bright one without a label."""
    truth = np.full(SHAPE, -900.0)
    truth[:, 20] = 0
    truth[:, 80] = 100
    strength = ridges(truth, 2.0)
    structures = Structures(LINES, NONE, strength, 4)
    assert structures.found_by(strength) == (1, 1, 1)
    alone = np.where(LINES, -900.0, -900.0)
    alone[:, 20] = 0
    assert structures.found_by(ridges(alone, 2.0)) == (1, 1, 1)
    elsewhere = np.roll(alone, 20, axis=1)
    assert structures.found_by(ridges(elsewhere, 2.0)).f1 == 0


def test_thin_parts_are_told_by_the_disc_that_fits() -> None:
    shapes = np.zeros((1, 64, 64), bool)
    shapes[0, 5:9] = True  # four pixels
    shapes[0, 30:50, 10:40] = True  # twenty
    thin = thinner_than(shapes, 10)
    assert thin[0, 5:9].all()
    assert thin[0, 33:47, 15:35].sum() == 0


def test_within_is_a_disc_in_its_own_slice() -> None:
    marks = np.zeros((2, 21, 21), bool)
    marks[0, 10, 10] = True
    near = within(marks, 4)
    rows, columns = np.mgrid[:21, :21] - 10
    np.testing.assert_array_equal(near[0], rows**2 + columns**2 <= 16)
    assert not near[1].any()
