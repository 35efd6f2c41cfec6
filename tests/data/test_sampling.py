"""Tests for data/sampling.py."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from data.sampling import PatchPositions, Rule, item_generator, largest_patch
from data.volumes.volume import Volume
from util.errors import UserError


def make_volume(size: tuple[int, int, int]) -> Volume:
    array = np.broadcast_to(np.zeros((1, 1, 1), np.int16), size[::-1])
    return Volume(array=array, affine=np.eye(4), source="scans/case7.nii.gz")


def blobs(seed: int, shape: tuple[int, int, int] = (5, 40, 50), filled: float = 0.97) -> np.ndarray:
    """Mask full of small holes, the last slice empty."""
    mask = np.random.default_rng(seed).random(shape) < filled
    mask[-1] = False
    return mask


def admissible_by_hand(mask: np.ndarray, size: int, rule: Rule) -> set[tuple[int, int, int]]:
    slices, rows, columns = mask.shape
    return {
        (z, y, x)
        for z in range(slices)
        for y in range(rows - size + 1)
        for x in range(columns - size + 1)
        if (
            mask[z, y : y + size, x : x + size].all()
            if rule == "inside"
            else mask[z, y + size // 2, x + size // 2]
        )
    }


@pytest.mark.parametrize("rule", ["inside", "centre"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
def test_positions_are_exactly_the_admissible_ones(size: int, rule: Rule) -> None:
    mask = blobs(size, (4, 17, 19))
    mask[1, 2:16, 3:17] = True
    expected = admissible_by_hand(mask, size, rule)
    positions = PatchPositions(make_volume((19, 17, 4)), size, mask, rule)
    assert positions.count == len(expected)
    generator = item_generator(3)
    drawn = {positions.draw(generator) for _ in range(12 * len(expected))}
    assert drawn == expected


@pytest.mark.parametrize("seed", range(5))
def test_every_patch_lies_wholly_inside_the_mask(seed: int) -> None:
    mask = blobs(seed)
    positions = PatchPositions(make_volume((50, 40, 5)), 6, mask)
    generator = item_generator(seed)
    for _ in range(300):
        z, y, x = positions.draw(generator)
        assert mask[z, y : y + 6, x : x + 6].shape == (6, 6)
        assert mask[z, y : y + 6, x : x + 6].all()


@pytest.mark.parametrize("masked", [True, False])
def test_every_position_is_equally_likely(masked: bool) -> None:
    mask = blobs(1, (3, 9, 8), 0.9) if masked else None
    positions = PatchPositions(make_volume((8, 9, 3)), 3, mask)
    generator = item_generator(0)
    draws = [positions.draw(generator) for _ in range(60 * positions.count)]
    _, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(counts) == positions.count
    assert stats.chisquare(counts).pvalue > 0.001


def test_without_a_mask_patches_go_everywhere() -> None:
    positions = PatchPositions(make_volume((7, 6, 2)), 4)
    assert positions.count == 2 * 3 * 4
    generator = item_generator(0)
    drawn = {positions.draw(generator) for _ in range(600)}
    assert drawn == {(z, y, x) for z in range(2) for y in range(3) for x in range(4)}


@pytest.mark.parametrize("value", [1, 255])
def test_any_non_zero_mask_value_admits(value: int) -> None:
    mask = np.full((2, 8, 8), value, np.uint8)
    assert PatchPositions(make_volume((8, 8, 2)), 8, mask).count == 2


def test_empty_set_names_volume_size_and_largest_patch() -> None:
    mask = np.zeros((3, 40, 50), bool)
    mask[1, 5:18, 7:40] = True
    with pytest.raises(UserError) as caught:
        PatchPositions(make_volume((50, 40, 3)), 32, mask)
    message = str(caught.value)
    for part in ("32x32", "lung mask", "scans/case7.nii.gz", "50x40x3", "at most 13"):
        assert part in message
    assert "\n" not in message


def test_volume_smaller_than_a_patch_is_refused() -> None:
    for mask in (None, np.ones((3, 20, 50), bool)):
        with pytest.raises(UserError, match=r"does not fit in .*case7.*50x20x3.*at most 20"):
            PatchPositions(make_volume((50, 20, 3)), 32, mask)


def test_empty_mask_and_foreign_mask_are_refused() -> None:
    with pytest.raises(UserError, match=r"case7.*mask is empty: .* slices that show some"):
        PatchPositions(make_volume((9, 9, 2)), 3, np.zeros((2, 9, 9), bool))
    with pytest.raises(UserError, match=r"case7.* has size 9x9x3, its CT 9x9x2.*same grid"):
        PatchPositions(make_volume((9, 9, 2)), 3, np.ones((3, 9, 9), bool))


@pytest.mark.parametrize("rule", ["inside", "centre"])
def test_largest_patch_is_the_largest_that_fits(rule: Rule) -> None:
    mask = blobs(4, (4, 21, 23), 0.985 if rule == "inside" else 0.002)
    volume = make_volume((23, 21, 4))
    largest = largest_patch(volume, mask, rule)
    assert largest > 0
    assert PatchPositions(volume, largest, mask, rule).count > 0
    with pytest.raises(UserError, match=f"at most {largest}"):
        PatchPositions(volume, largest + 1, mask, rule)


def test_mapped_mask_is_pickled_by_name(tmp_path: Path) -> None:
    mask = np.ones((20, 100, 100), np.uint8)
    mask.tofile(tmp_path / "mask.raw")
    mapped = np.memmap(tmp_path / "mask.raw", np.uint8, "r", shape=mask.shape)
    positions = PatchPositions(make_volume((100, 100, 20)).select_slices(5, 9), 32, mapped[5:9])
    stored = pickle.dumps(positions)
    assert len(stored) < mapped[5:9].size / 4
    copy = pickle.loads(stored)
    assert copy.draw(item_generator(1)) == positions.draw(item_generator(1))


def test_positions_are_kept_and_found_in_little_memory() -> None:
    volume = make_volume((512, 512, 12))
    mask = np.zeros((12, 512, 512), bool)
    mask[:, 100:400, 60:450] = True
    tracemalloc.start()
    positions = PatchPositions(volume, 32, mask)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert positions.count > 0
    assert kept < 0.05 * mask.nbytes
    # Working on one slice at a time, never on the volume.
    assert peak < 6 * mask[0].nbytes


def test_item_generator_depends_on_all_its_keys_only() -> None:
    def first(*keys: int) -> float:
        return float(item_generator(*keys).random())

    assert first(1, 2, 3) == first(1, 2, 3)
    tuples = [(1,), (1, 0), (1, 0, 0), (0, 1), (1, 2), (2, 1), (2**32,), (0,), (2**63, 5)]
    assert len({first(*keys) for keys in tuples}) == len(tuples)
