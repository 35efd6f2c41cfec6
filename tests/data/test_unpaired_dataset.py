"""Tests for data/unpaired_dataset.py and what it shares in data/patches.py."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_helpers import (
    MICRO_WINDOW,
    clinical_volume,
    is_patch_of,
    make_dataset,
    make_volume,
    micro_volume,
)
from torch.utils.data import DataLoader

from data.patches import shrink
from data.sampling import EpochSampler
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from util.errors import UserError

# Half its voxel size is 0.05 mm.
FINE = [(replace(clinical_volume(), affine=np.diag([0.1, 0.1, 1.0, 1.0])), None)]


def constant_micro(count: int) -> list[Volume]:
    """Micro volumes that tell their number by their one intensity: number * 100."""
    return [
        make_volume(np.full((2, 40, 40), 100 * number, np.uint16), f"micro{number}.tif")
        for number in range(count)
    ]


def partner(item: dict[str, torch.Tensor]) -> int:
    return int(MICRO_WINDOW.to_physical(item["micro"].numpy()).mean().round()) // 100


def test_items_have_the_promised_shape_type_and_range() -> None:
    dataset = make_dataset()
    assert len(dataset) == 20
    for item in dataset:
        assert set(item) == {"clinical", "micro"}
        assert item["clinical"].shape == (1, 8, 8)
        assert item["micro"].shape == (1, 32, 32)
        for patch in item.values():
            assert patch.dtype == torch.float32
            assert patch.is_contiguous()
            assert patch.abs().max() <= 1
            assert patch.std() > 0.1


def test_max_size_caps_the_epoch() -> None:
    assert len(make_dataset(max_size=7)) == 7
    assert len(make_dataset(max_size=700)) == 20


def test_patches_come_from_their_volumes() -> None:
    dataset = make_dataset(micro_mix=0.0)
    clinical = [CLINICAL_WINDOW.to_unit(clinical_volume(number).array) for number in (0, 1)]
    micro = [MICRO_WINDOW.to_unit(micro_volume(number).array) for number in range(3)]
    for key in range(12):
        item = dataset[key]
        assert is_patch_of(item["clinical"][0].numpy(), clinical[key % 2])
        assert any(is_patch_of(item["micro"][0].numpy(), unit) for unit in micro)


def test_clinical_patches_lie_inside_the_mask() -> None:
    mask = np.zeros((4, 30, 40), np.uint8)
    mask[2, 4:18, 9:30] = 1
    array = np.where(mask > 0, 500, -1000).astype(np.int16)
    dataset = make_dataset(clinical=[(make_volume(array, "ct.nii.gz"), mask)], micro_mix=0.0)
    # Constant patches carry a little noise, see data.patches.noise_if_constant.
    assert all(item["clinical"].min() > 0.9 for item in dataset)


def test_an_item_depends_on_seed_epoch_and_index_only() -> None:
    dataset = make_dataset()
    later = dataset[57]
    again = make_dataset()[57]
    assert torch.equal(later["clinical"], again["clinical"])
    assert torch.equal(later["micro"], again["micro"])
    other = make_dataset(seed=8)[57]
    assert not torch.equal(later["micro"], other["micro"])


def test_patches_are_fresh_each_epoch_unless_told_otherwise() -> None:
    length = 20
    fresh, fixed = make_dataset(), make_dataset(fresh=False)
    for index in range(5):
        for domain in ("clinical", "micro"):
            assert not torch.equal(fresh[index][domain], fresh[index + length][domain])
            assert torch.equal(fixed[index][domain], fixed[index + 3 * length][domain])
            assert torch.equal(fixed[index][domain], fresh[index][domain])


def test_partners_are_random_and_differ_between_epochs() -> None:
    dataset = make_dataset(micro=constant_micro(4), patches_per_volume=100)
    epochs = [[partner(dataset[epoch * 200 + i]) for i in range(200)] for epoch in (0, 1)]
    same = np.mean(np.array(epochs[0]) == np.array(epochs[1]))
    assert 0.1 < same < 0.4  # 1/4 by chance
    assert all(25 <= epochs[0].count(number) <= 75 for number in range(4))


def test_clinical_and_micro_draws_are_independent() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.int16), (1, 40, 200))
    dataset = make_dataset(
        clinical=[(make_volume(ramp, "ct.nii.gz"), None)],
        micro=[make_volume(ramp, "micro.tif")],
        windows=WindowPolicy("window", IntensityWindow(0, 200), IntensityWindow(0, 200)),
        patches_per_volume=400,
        micro_mix=0.0,
    )
    places = np.array([[item["clinical"].mean(), item["micro"].mean()] for item in dataset])
    assert places.std(axis=0).min() > 0.3
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.15


def test_micro_draws_do_not_depend_on_the_clinical_side() -> None:
    one, other = make_dataset(micro_mix=0.0), make_dataset(micro_mix=1.0)
    for key in range(5):
        assert torch.equal(one[key]["micro"], other[key]["micro"])


def test_serial_pairs_by_index_and_fixed_epochs_keep_the_pairs() -> None:
    dataset = make_dataset(micro=constant_micro(3), serial=True)
    assert [partner(dataset[key]) for key in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert partner(dataset[20]) == 0
    published = make_dataset(serial=True, fresh=False)
    for key in range(5):
        for domain in ("clinical", "micro"):
            assert torch.equal(published[key][domain], published[key + 20][domain])


@pytest.mark.parametrize("degradation", ["area", "zoom"])
def test_micro_mix_feeds_shrunk_micro_patches_other_than_the_partner(degradation: str) -> None:
    micro = micro_volume(0)
    dataset = make_dataset(micro=[micro], micro_mix=1.0, degradation=degradation, flip=False)
    unit = MICRO_WINDOW.to_unit(micro.array)
    windows = np.lib.stride_tricks.sliding_window_view(unit, (32, 32), axis=(1, 2))
    for key in range(3):
        item = dataset[key]
        low = item["clinical"][0].numpy()
        sources = (
            shrink(windows[z, y, x], 4, degradation).clip(-1, 1)  # type: ignore[arg-type]
            for z, y, x in np.ndindex(windows.shape[:3])
        )
        assert any(np.array_equal(low, source) for source in sources)
        partner_low = shrink(item["micro"][0].numpy(), 4, degradation)  # type: ignore[arg-type]
        assert not np.allclose(low, partner_low)


def test_items_say_which_clinical_patches_are_shrunk_ones() -> None:
    dataset = make_dataset(micro_mix=0.5, mark_shrunk=True, flip=False)
    plain = make_dataset(micro_mix=0.5, flip=False)
    shrunk = []
    clinical = [CLINICAL_WINDOW.to_unit(clinical_volume(seed).array) for seed in range(2)]
    for marked, item in zip(dataset, plain, strict=True):
        assert torch.equal(marked["clinical"], item["clinical"])
        is_clinical = any(is_patch_of(item["clinical"][0].numpy(), unit) for unit in clinical)
        assert bool(marked["shrunk"]) != is_clinical
        shrunk.append(not is_clinical)
        assert "shrunk" not in item
    assert 0 < sum(shrunk) < len(shrunk)


def test_micro_mix_is_a_probability() -> None:
    dark = make_volume(np.full((2, 20, 20), -1000, np.int16), "ct.nii.gz")
    bright = make_volume(np.full((1, 40, 40), 1000, np.uint16), "micro.tif")
    dataset = make_dataset(clinical=[(dark, None)], micro=[bright], patches_per_volume=1000)
    share = np.mean([float(item["clinical"].mean()) > 0 for item in dataset])
    assert 0.2 < share < 0.3
    never = make_dataset(clinical=[(dark, None)], micro=[bright], micro_mix=0.0)
    assert all(item["clinical"].max() < -0.9 for item in never)


def test_flips_are_independent_per_direction_and_domain() -> None:
    rows, columns = np.indices((32, 32))
    corner = ((rows < 16) * 2 + (columns < 16)).astype(np.int16)
    large = make_volume(corner[None], "micro.tif")
    small = make_volume(corner[None, 12:20, 12:20], "ct.nii.gz")
    policy = WindowPolicy("window", IntensityWindow(0, 3), IntensityWindow(0, 3))
    changes = {
        "clinical": [(small, None)],
        "micro": [large],
        "windows": policy,
        "micro_mix": 0.0,
        "patches_per_volume": 800,
    }
    # The top left value tells which of the four mirror images a patch is.
    kinds = [
        tuple(round((float(item[domain][0, 0, 0]) + 1) * 1.5) for domain in ("clinical", "micro"))
        for item in make_dataset(**changes)
    ]
    counts = [kinds.count((one, other)) for one in range(4) for other in range(4)]
    assert min(counts) > 25  # 50 expected of each of the 16 pairs
    assert all(
        item["clinical"][0, 0, 0] == 1 == item["micro"][0, 0, 0]
        for item in make_dataset(**changes, flip=False)
    )


def test_minmax_uses_each_volumes_own_range() -> None:
    policy = WindowPolicy("minmax", CLINICAL_WINDOW, MICRO_WINDOW)
    narrow = make_volume(clinical_volume().array // 10, "narrow.nii.gz")
    dataset = make_dataset(clinical=[(narrow, None)], windows=policy, micro_mix=0.0)
    assert min(float(item["clinical"].min()) for item in dataset) < -0.95
    assert max(float(item["clinical"].max()) for item in dataset) > 0.95


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_with_the_very_next_item(workers: int) -> None:
    dataset = make_dataset()
    keys = EpochSampler(len(dataset), seed=1)
    keys.set_position(1)
    expected = [dataset[key] for key in keys]
    keys.set_position(1, 8)
    loader = DataLoader(dataset, batch_size=4, sampler=keys, num_workers=workers)
    batches = list(loader)
    assert len(batches) == 3
    for domain in ("clinical", "micro"):
        got = torch.cat([batch[domain] for batch in batches])
        assert torch.equal(got, torch.stack([item[domain] for item in expected[8:]]))


def test_pickling_for_workers_copies_no_mapped_voxels(tmp_path: Path) -> None:
    for name, volume in (("ct", clinical_volume()), ("micro", micro_volume())):
        np.repeat(volume.array, 20, axis=0).tofile(tmp_path / name)
    np.ones((80, 30, 40), np.uint8).tofile(tmp_path / "mask")
    clinical = np.memmap(tmp_path / "ct", np.int16, "r", shape=(80, 30, 40))
    micro = np.memmap(tmp_path / "micro", np.uint16, "r", shape=(60, 70, 60))
    mask = np.memmap(tmp_path / "mask", np.uint8, "r", shape=(80, 30, 40))
    dataset = make_dataset(
        clinical=[(make_volume(clinical, "ct.nii.gz"), mask)], micro=[make_volume(micro, "m.tif")]
    )
    stored = pickle.dumps(dataset)
    assert len(stored) < mask.nbytes / 3
    assert torch.equal(pickle.loads(stored)[3]["clinical"], dataset[3]["clinical"])


def test_what_cannot_be_trained_on_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="at least one micro volume"):
        make_dataset(micro=[])
    with pytest.raises(UserError, match="at least one clinical volume"):
        make_dataset(clinical=[])
    small = make_volume(np.zeros((2, 20, 50), np.uint16), "small.tif")
    with pytest.raises(UserError, match=r"32x32 patch does not fit in small\.tif.*at most 20"):
        make_dataset(micro=[micro_volume(), small])
    with pytest.raises(IndexError, match="negative"):
        make_dataset()[-1]


def test_micro_patches_are_resampled_to_the_wanted_voxel_size() -> None:
    """Pixels of 0.02 mm to 0.05: patches of 8 pixels cover 20."""
    volume = replace(micro_volume(), affine=np.diag([0.02, 0.02, 0.02, 1.0]))
    dataset = make_dataset(
        micro=[volume], clinical=FINE, clinical_patch_size=4, scale=2, match_spacing=True
    )
    assert dataset.patch_counts()[-1] == 3 * (70 - 19) * (60 - 19)
    assert dataset[0]["micro"].shape == (1, 8, 8)
    plain = make_dataset(micro=[volume], clinical_patch_size=4, scale=2)
    assert plain.patch_counts()[-1] == 3 * (70 - 7) * (60 - 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing_known": False}, "states no voxel size, which --match_spacing needs"),
        ({"affine": np.diag([0.02, 0.03, 0.02, 1.0])}, "pixels of 0.02 x 0.03 mm"),
        ({"affine": np.diag([0.001, 0.001, 0.02, 1.0])}, "400x400 patch does not fit"),
    ],
)
def test_a_voxel_size_that_cannot_be_matched_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    volume = replace(micro_volume(), affine=np.diag([0.02, 0.02, 0.02, 1.0]))
    with pytest.raises(UserError, match=message):
        make_dataset(
            micro=[replace(volume, **changes)],
            clinical=FINE,
            clinical_patch_size=4,
            scale=2,
            match_spacing=True,
        )
