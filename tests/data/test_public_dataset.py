"""Tests for data/public_dataset.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dataset_helpers import dataset_of

from data.public_dataset import PublicDataset
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from util.errors import UserError

POLICY = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(0, 1))


def make_volume(array: np.ndarray, source: str = "ct.nii.gz") -> Volume:
    return Volume(array=array, affine=np.eye(4), source=source)


def noise_volume(seed: int = 0) -> Volume:
    return make_volume(
        np.random.default_rng(seed).integers(-1000, 500, (3, 40, 50), dtype=np.int16)
    )


def make_dataset(**changes: Any) -> PublicDataset:
    clinical = changes.pop("clinical", [(noise_volume(0), None), (noise_volume(1), None)])
    settings = {"micro_patch_size": 16, **changes}
    windows = settings.pop("windows", POLICY)
    return dataset_of(PublicDataset, clinical, [], windows, **settings)


def test_items_have_the_promised_shape_type_and_range() -> None:
    dataset = make_dataset()
    assert len(dataset) == 20
    for item in dataset:
        assert item["clinical"].shape == (1, 4, 4)
        assert item["micro"].shape == (1, 16, 16)
        for patch in item.values():
            assert patch.dtype == torch.float32
            assert patch.abs().max() <= 1


def test_low_resolution_shows_another_place_than_high_resolution() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.int16), (1, 40, 200))
    policy = WindowPolicy("window", IntensityWindow(0, 200), IntensityWindow(0, 1))
    dataset = make_dataset(
        clinical=[(make_volume(ramp), None)], windows=policy, patches_per_volume=400
    )
    places = np.array([[item["clinical"].mean(), item["micro"].mean()] for item in dataset])
    assert places.std(axis=0).min() > 0.3
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.15


def test_low_resolution_is_a_shrunk_patch_of_the_same_volume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, columns = np.indices((64, 64))
    # Blocks of 4 x 4 whose means are all different: any 16 x 16 patch is told by them.
    array = (rows * 7 + columns * 3 - 300).astype(np.int16)[None]
    monkeypatch.setattr("data.public_dataset.NOISE_PROBABILITY", 0.0)
    dataset = make_dataset(clinical=[(make_volume(array), None)], flip=False)
    unit = CLINICAL_WINDOW.to_unit(array[0])
    for item in dataset:
        low = item["clinical"][0].numpy()
        steps = np.diff(low, axis=0).mean(), np.diff(low, axis=1).mean()
        np.testing.assert_allclose(steps, (28 / 750, 12 / 750), atol=1e-5)
        assert unit.min() < low.min() <= low.max() < unit.max()


def test_patch_centres_lie_in_the_mask_though_patches_do_not() -> None:
    mask = np.zeros((3, 40, 50), np.uint8)
    mask[1, 20:23, 25:28] = 1
    array = np.where(mask > 0, 500, -1000).astype(np.int16)
    dataset = make_dataset(clinical=[(make_volume(array), mask)], flip=False)
    for item in dataset:
        assert item["micro"][0, 8, 8] == 1
        assert (item["micro"] == -1).any()


def test_noise_falls_on_a_tenth_of_the_low_resolution_patches_only() -> None:
    array = np.full((1, 40, 50), -250, np.int16)  # 0 in [-1, 1]
    changes = {"clinical": [(make_volume(array), None)], "patches_per_volume": 1000}
    items = list(make_dataset(**changes))
    # Constant patches carry noise of sigma 0.01, see data.patches.noise_if_constant.
    assert all(item["micro"].std() < 0.02 for item in items)
    noisy = [item["clinical"] for item in items if item["clinical"].std() > 0.02]
    assert 70 < len(noisy) < 130
    assert torch.cat(noisy).std() == pytest.approx(0.05, rel=0.1)


def test_a_random_scanner_brings_the_noise_itself() -> None:
    plain, marked = make_dataset(flip=False), make_dataset(flip=False, mark_shrunk=True)
    assert all(bool(item["shrunk"]) for item in marked)
    same = [torch.equal(a["clinical"], b["clinical"]) for a, b in zip(plain, marked, strict=True)]
    assert 0.6 < np.mean(same) < 1  # all but those with the published noise


def test_noise_stays_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.public_dataset.NOISE_PROBABILITY", 1.0)
    array = np.full((1, 40, 50), 500, np.int16)
    dataset = make_dataset(clinical=[(make_volume(array), None)])
    assert max(float(item["clinical"].max()) for item in dataset) == 1
    assert min(float(item["clinical"].min()) for item in dataset) < 0.95


def test_items_are_reproducible_and_fresh_each_epoch() -> None:
    dataset, fixed = make_dataset(), make_dataset(fresh=False)
    for key in range(4):
        for domain in ("clinical", "micro"):
            assert torch.equal(dataset[key + 20][domain], make_dataset()[key + 20][domain])
            assert not torch.equal(dataset[key][domain], dataset[key + 20][domain])
            assert torch.equal(fixed[key][domain], fixed[key + 20][domain])


def test_published_size_on_a_slice_as_scanned() -> None:
    array = np.zeros((2, 512, 512), np.int16)
    item = make_dataset(clinical=[(make_volume(array), None)], micro_patch_size=192)[0]
    assert item["clinical"].shape == (1, 48, 48)
    assert item["micro"].shape == (1, 192, 192)


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(UserError, match="30 pixels cannot be shrunk 4 times"):
        make_dataset(micro_patch_size=30)
    with pytest.raises(UserError, match=r"192x192 patch does not fit in ct\.nii\.gz.*at most 40"):
        make_dataset(micro_patch_size=192)
    with pytest.raises(UserError, match="at least one clinical volume"):
        make_dataset(clinical=[])
