"""Airways whose lumen and wall are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from util.images.airways import find_airways, measure_airway

SPACING = 0.0625
ROWS, COLUMNS = np.mgrid[:160, :160] - 80.0


Masks = tuple[np.ndarray, np.ndarray, np.ndarray]


def ring(inner: float, wall: float, stretch: float = 1.0) -> Masks:
    """Masks of lumen, wall and parenchyma."""
    radius = np.hypot(ROWS, COLUMNS / stretch) * SPACING
    lumen, tube = radius < inner, radius < inner + wall
    return lumen, tube & ~lumen, ~tube


def painted(lumen: np.ndarray, wall: np.ndarray, parenchyma: np.ndarray) -> np.ndarray:
    return np.select([lumen, wall], [-1000.0, 20.0], -870.0)


@pytest.mark.parametrize(("inner", "wall"), [(0.7, 0.2), (1.2, 0.3), (2.0, 0.45)])
def test_a_sharp_airway_measures_what_it_is(inner: float, wall: float) -> None:
    masks = ring(inner, wall)
    (airway,) = find_airways(*masks, SPACING)
    assert airway.lumen == pytest.approx(np.pi * inner**2, rel=0.05)
    assert airway.wall == pytest.approx(wall, abs=0.04)
    lumen, thickness = measure_airway(painted(*masks), airway, SPACING)
    # The labels' own steps of a pixel blur the edges a little.
    assert lumen == pytest.approx(airway.lumen, rel=0.15)
    assert thickness == pytest.approx(wall, abs=SPACING)


def test_blur_makes_a_wall_thicker() -> None:
    masks = ring(1.2, 0.2)
    (airway,) = find_airways(*masks, SPACING)
    widths = [
        measure_airway(gaussian_filter(painted(*masks), sigma), airway, SPACING)[1]
        for sigma in (0.1, 2.0, 5.0)
    ]
    assert widths[0] < widths[1] < widths[2]
    assert widths[2] > 2 * airway.wall


def test_noise_of_100_hu_wins_nothing() -> None:
    """Over a blurred wall that measures three times too wide."""
    masks = ring(1.2, 0.2)
    (airway,) = find_airways(*masks, SPACING)
    image = gaussian_filter(painted(*masks), 5.0)
    generator = np.random.default_rng(0)
    noisy = [
        measure_airway(image + generator.normal(0, 100, image.shape), airway, SPACING)[1]
        for _ in range(20)
    ]
    clean = measure_airway(image, airway, SPACING)[1]
    assert np.mean(noisy) == pytest.approx(clean, rel=0.05)


def test_what_is_no_cross_section_is_left_out() -> None:
    assert find_airways(*ring(0.3, 0.1), SPACING) == []  # smaller than a clinical pixel
    assert find_airways(*ring(0.8, 0.2, stretch=4.0), SPACING) == []  # cut along
    lumen, wall, parenchyma = ring(1.0, 0.3)
    assert find_airways(lumen, np.zeros_like(wall), parenchyma | wall, SPACING) == []  # no wall
    for shift in (-80, 80):  # cut by the border
        lumen, wall, parenchyma = (np.roll(one, shift, axis=0) for one in ring(1.0, 0.3))
        assert find_airways(lumen, wall, parenchyma, SPACING) == []
    beside = parenchyma & (ROWS < -20)  # a vessel all around but one side
    assert find_airways(lumen, wall, beside, SPACING) == []


def test_rays_that_meet_a_vessel_are_left_out() -> None:
    lumen, wall, parenchyma = ring(1.0, 0.3)
    vessel = np.hypot(ROWS, COLUMNS - 36) < 14
    image = np.where(vessel & parenchyma, 60.0, painted(lumen, wall, parenchyma))
    (airway,) = find_airways(lumen, wall, parenchyma & ~vessel, SPACING)
    assert len(airway.rays) < 60
    assert measure_airway(image, airway, SPACING)[1] == pytest.approx(0.3, abs=0.06)


def test_an_image_without_the_airway_is_an_error_of_its_size() -> None:
    (airway,) = find_airways(*ring(1.0, 0.3), SPACING)
    lumen, wall = measure_airway(np.full(ROWS.shape, -870.0), airway, SPACING)
    assert lumen < 0.5 * airway.lumen
    assert wall > 2 * airway.wall
