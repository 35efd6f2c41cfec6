from __future__ import annotations

import numpy as np
import pytest

from data.patches import (
    CONSTANT_PATCH_NOISE,
    Choice,
    PatchSource,
    noise_if_constant,
    slab_of,
)
from data.sampling import item_generator
from data.volumes.volume import Volume
from data.windows import IntensityWindow


@pytest.mark.parametrize("value", [-1.0, 0.25, 1.0])
def test_a_constant_patch_gets_a_little_noise(value: float) -> None:
    patch = np.full((32, 32), value, dtype=np.float32)
    noisy = noise_if_constant(patch, item_generator(0, 1, 2))
    assert noisy.dtype == np.float32
    assert noisy.min() < noisy.max()
    assert np.abs(noisy - value).max() < 6 * CONSTANT_PATCH_NOISE
    assert noisy.min() >= -1
    assert noisy.max() <= 1
    np.testing.assert_array_equal(noisy, noise_if_constant(patch, item_generator(0, 1, 2)))


def test_any_other_patch_is_left_alone() -> None:
    patch = np.zeros((8, 8), dtype=np.float32)
    patch[0, 0] = 1e-3
    assert noise_if_constant(patch, item_generator(0)) is patch


def source(rows: int, pixels: int | None = None) -> PatchSource:
    array = np.arange(rows * 20, dtype=np.int16).reshape(1, rows, 20)
    return PatchSource(
        Volume(array, np.eye(4), f"{rows}.nii"), IntensityWindow(0, 400), 4, pixels=pixels
    )


@pytest.mark.parametrize(("sampling", "expected"), [("by_volume", 0.5), ("by_size", 0.9)])
def test_volumes_are_weighted_as_asked(sampling: str, expected: float) -> None:
    """Of 4 and of 12 rows: one and nine rows of positions."""
    choice = Choice([source(4), source(12)], sampling)  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    share = np.mean([choice.draw(generator) is choice.sources[1] for _ in range(4000)])
    assert share == pytest.approx(expected, abs=0.03)
    in_turn = [choice.of_item(index, generator) is choice.sources[1] for index in range(4000)]
    assert np.mean(in_turn) == pytest.approx(expected, abs=0.03)
    assert (in_turn[:4] == [False, True, False, True]) == (sampling == "by_volume")


def test_patches_of_another_voxel_size_are_averaged() -> None:
    found = source(12, pixels=8)
    patch = found.draw(np.random.default_rng(3))
    section, row, column = found.positions.draw(np.random.default_rng(3))
    wide = found.volume.read_patch(section, row, column, 8, 8)
    mean = wide.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(patch, found.window.to_unit(mean), atol=1e-6)
    assert found.positions.count == 5 * 13


def test_patches_are_read_with_other_edges_around_the_same_middle() -> None:
    array = np.arange(40 * 40, dtype=np.int16).reshape(1, 40, 40)
    volume = Volume(array, np.eye(4), "40.nii")
    found = PatchSource(volume, IntensityWindow(0, 1600), 8, zoom=(0.5, 2.0))
    assert found.positions.count == 33 * 33  # as many as without another edge
    slopes, generator = [], np.random.default_rng(0)
    for seed in range(200):
        patch = found.window.to_physical(found.draw(np.random.default_rng(seed)))
        assert patch.shape == (8, 8)
        _, row, column = found.positions.draw(np.random.default_rng(seed))
        slope = float(patch[4, 4] - patch[4, 3])
        # Half of what is read must lie inside: the middle moves in from the border.
        nearest, furthest = (limit - 0.5 for limit in (4 * slope, 40 - 4 * slope))
        middle = [min(max(start + 3.5, nearest), furthest) for start in (row, column)]
        assert float(patch.mean()) == pytest.approx(40 * middle[0] + middle[1], abs=42)
        slopes.append(slope)
    assert min(slopes) == pytest.approx(0.5, abs=0.2)
    assert max(slopes) == pytest.approx(2.0, abs=0.2)
    small = PatchSource(volume, IntensityWindow(0, 1600), 32, zoom=(0.8, 1.8))
    assert small.positions.count == 9 * 9
    assert small.draw(generator).shape == (32, 32)


def test_patches_are_averages_over_neighbouring_slices() -> None:
    slices = np.random.default_rng(1).integers(0, 100, (9, 12, 12)).astype(np.int16)
    volume = Volume(slices, np.eye(4), "9.nii")
    window = IntensityWindow(0, 100)
    found = PatchSource(volume, window, 12, slab=(1, 5))
    means = {
        (count, first): window.to_unit(slices[first : first + count].mean(axis=0))
        for count in range(1, 10)
        for first in range(10 - count)
    }
    counts = []
    for seed in range(200):
        patch = found.draw(np.random.default_rng(seed))
        section = found.positions.draw(np.random.default_rng(seed))[0]
        (fitting,) = (key for key, mean in means.items() if np.allclose(patch, mean, atol=1e-5))
        counts.append(fitting[0])
        assert fitting[1] <= section < sum(fitting)  # the drawn slice is among them
    assert set(counts) == {1, 2, 3, 4, 5}


def test_a_slab_is_as_thick_as_a_clinical_slice_and_no_thicker_than_the_volume() -> None:
    volume = Volume(np.zeros((20, 4, 4), np.int16), np.diag([0.1, 0.1, 0.05, 1.0]), "20.nii")
    assert slab_of(volume, 0.5, (0.0, 1.25)) == (1, 12)
    assert slab_of(volume, 0.5, (1.0, 1.0)) == (10, 10)
    assert slab_of(volume, 3.0, (0.0, 1.25)) == (1, 20)
    assert slab_of(volume, 0.01, (0.0, 1.25)) == (1, 1)
    assert slab_of(volume, None, (0.0, 1.25)) == (1, 1)
