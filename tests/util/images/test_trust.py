"""The four figures without truth, on images and filters made for them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from util.errors import UserError
from util.images.resampling import enlarge
from util.images.trust import (
    NOISE_ADDED,
    Slice,
    consistency,
    flip,
    lattice,
    measure_trust,
    noise_gain,
)

SCALE = 8
SIZE = 48


def lung(seed: int = 0) -> Slice:
    """A slice of 48 x 48 whose spectrum falls off as tissue's does, HU."""
    noise = np.random.default_rng(seed).standard_normal((SIZE, SIZE))
    smooth = ndimage.gaussian_filter(noise, 0.7)
    return (-850 + 60 * smooth / smooth.std()).astype(np.float32)


def texture(seed: int = 1, deviation: float = 20.0) -> Slice:
    """Fine texture without a grid, at the enlarged size, HU."""
    noise = np.random.default_rng(seed).standard_normal((SIZE * SCALE, SIZE * SCALE))
    smooth = ndimage.gaussian_filter(noise, 1.0)
    return (deviation * smooth / smooth.std()).astype(np.float32)


def disc() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return np.hypot(y, x) < 20


def cubic(image: Slice) -> Slice:
    return enlarge(image, SCALE, 3)


def grid(amplitude: float, seed: int = 2) -> Slice:
    """A pattern that repeats in each input pixel, of this root mean square, HU."""
    cell = np.random.default_rng(seed).standard_normal((SCALE, SCALE))
    cell -= cell.mean()
    return np.tile(amplitude * cell / cell.std(), (SIZE, SIZE)).astype(np.float32)


def test_images_without_a_grid_have_none() -> None:
    ratios = [lattice(cubic(lung(s)) + texture(s + 50), disc()).decibel for s in range(20)]
    assert np.mean(ratios) == pytest.approx(0, abs=0.6)


def test_an_empty_image_has_no_grid() -> None:
    assert lattice(np.zeros((SIZE * SCALE, SIZE * SCALE), np.float32), disc()) == (0.0, 0.0)


@pytest.mark.parametrize("height", [2.0, 8.0])
def test_a_grid_is_found_with_its_height(height: float) -> None:
    image = cubic(lung()) + texture()
    found = lattice(image + grid(height), disc())
    assert found.amplitude == pytest.approx(height, rel=0.15)
    assert found.decibel > 5
    assert lattice(image, disc()).amplitude < 0.8


def test_noise_hides_a_grid_from_the_ratio_but_not_from_the_amplitude() -> None:
    image = cubic(lung()) + grid(4.0)
    clean, noisy = (lattice(image + texture(3, sd), disc()) for sd in (5.0, 100.0))
    assert noisy.decibel < clean.decibel - 10
    assert noisy.amplitude == pytest.approx(4.0, rel=0.25)


def test_a_grid_outside_the_mask_does_not_count() -> None:
    pattern = grid(30.0)
    pattern[:, SIZE * SCALE // 2 :] = 0
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:-4, SIZE // 2 + 2 : -2] = True
    found = lattice(cubic(lung()) + texture() + pattern, mask)
    assert found.amplitude < 1.5
    assert found.decibel < 3


def test_a_mask_that_holds_too_little_is_refused() -> None:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:3, :3] = True
    with pytest.raises(UserError, match="a mask of 9 pixels shows no grid"):
        lattice(cubic(lung()), mask)


def test_flip_of_a_filter_that_mirrors_with_its_input_is_nothing() -> None:
    image = lung()
    assert flip(cubic, cubic(image), image, disc()) < 1e-2


def test_flip_of_a_filter_that_leans_to_one_side_is_its_lean() -> None:
    image = np.broadcast_to(10.0 * np.arange(SIZE, dtype=np.float32), (SIZE, SIZE)).copy()

    def leaning(slice_: Slice) -> Slice:
        return np.roll(enlarge(slice_, SCALE, 1), 4, axis=1)

    middle = np.zeros((SIZE, SIZE), bool)
    middle[8:-8, 8:-8] = True
    # Moved by half a pixel to one side, and by half a pixel to the other in the mirror.
    assert flip(leaning, leaning(image), image, middle) == pytest.approx(10, rel=1e-3)


def test_noise_gain_of_repeated_pixels_is_one_and_of_an_average_less() -> None:
    image = lung()

    def nearest(slice_: Slice) -> Slice:
        return enlarge(slice_, SCALE, 0)

    def averaging(slice_: Slice) -> Slice:
        return nearest(ndimage.uniform_filter(slice_, 3))

    def doubling(slice_: Slice) -> Slice:
        return 2 * nearest(slice_)

    for enlarging, expected in ((nearest, 1), (averaging, 1 / 3), (doubling, 2)):
        gain = noise_gain(enlarging, enlarging(image), image, disc())
        assert gain == pytest.approx(expected, rel=0.08)
    assert NOISE_ADDED == 15


def test_consistency_is_the_difference_of_the_average() -> None:
    image, mask = lung(), disc()
    repeated = enlarge(image, SCALE, 0)
    assert consistency(repeated, image, mask) < 1e-3
    repeated[:, : SIZE * SCALE // 2] += 10
    assert consistency(repeated, image, mask) == pytest.approx(5, rel=0.02)


def test_all_four_figures_of_a_slice_and_what_they_cost() -> None:
    image, mask, calls = lung(), disc(), []

    def counted(slice_: Slice) -> Slice:
        calls.append(slice_.shape)
        return cubic(slice_)

    found = measure_trust(counted, image, mask)
    assert len(calls) == 3
    assert found.consistency == consistency(cubic(image), image, mask)
    assert found.flip < 0.01
    assert 0.3 < found.noise_gain < 1
    assert found.lattice == lattice(cubic(image), mask)
    assert measure_trust(cubic, image, mask) == found
