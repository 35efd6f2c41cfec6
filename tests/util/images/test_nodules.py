"""Nodules whose volume and border are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from util.images.nodules import Nodule

SPACING = (0.25, 0.25, 0.5)
Z, Y, X = np.mgrid[:9, :48, :48].astype(float)
DISTANCE = np.sqrt(((Z - 4) * 0.5) ** 2 + ((Y - 24) * 0.25) ** 2 + ((X - 24) * 0.25) ** 2)
BALL = DISTANCE < 3
VESSEL = (np.abs(Y - 24) < 2) & (X > 30)
IMAGE = np.where(BALL | VESSEL, 30.0, -870.0)


def nodule(other: np.ndarray = VESSEL) -> Nodule:
    return Nodule(BALL, other, -420, SPACING)


def test_the_image_itself_has_its_volume_and_no_distance() -> None:
    wanted = np.count_nonzero(BALL & ~VESSEL) * 0.25 * 0.25 * 0.5
    assert nodule().volume(IMAGE) == pytest.approx(wanted)
    assert nodule().boundary_distance(IMAGE) == 0
    assert nodule(np.zeros_like(VESSEL)).volume(IMAGE) > wanted


def test_a_border_that_moved_is_told_in_mm() -> None:
    larger = np.where((DISTANCE < 3.5) | VESSEL, 30.0, -870.0)
    assert nodule().boundary_distance(larger) == pytest.approx(0.5, abs=0.12)
    assert nodule().volume(larger) > 1.3 * nodule().volume(IMAGE)


def test_what_lies_far_away_and_islands_do_not_count() -> None:
    far = IMAGE.copy()
    far[:, 2:5, 2:5] = 100
    assert nodule().boundary_distance(far) == 0
    assert nodule().volume(far) == nodule().volume(IMAGE)
    island = IMAGE.copy()
    island[4, 24, 9] = 100  # within a millimetre, but by itself
    assert nodule().boundary_distance(island) == 0


def test_a_vessel_that_is_larger_than_the_nodule_is_not_taken_for_it() -> None:
    small = DISTANCE < 1
    beside = (np.hypot(Y - 24, X - 31) < 5) & ~small
    image = np.where(small | beside, 30.0, -870.0)
    assert Nodule(small, beside, -420, SPACING).boundary_distance(image) == 0


def test_noise_does_not_bring_a_blurred_border_nearer() -> None:
    blurred = gaussian_filter(IMAGE, (0, 3, 3))
    noise = np.random.default_rng(0).normal(0, 150, IMAGE.shape)
    plain = nodule().boundary_distance(blurred)
    assert plain > 0
    assert nodule().boundary_distance(blurred + noise) >= plain


def test_a_nodule_that_is_not_there_is_off_by_its_radius() -> None:
    flat = np.full_like(IMAGE, -870.0)
    alone = nodule(np.zeros_like(VESSEL))
    assert alone.boundary_distance(flat) == pytest.approx(2.5, abs=0.5)
    assert alone.volume(flat) == 0
