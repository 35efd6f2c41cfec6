"""Tests for data/paired_dataset.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dataset_helpers import dataset_of

from data.paired_dataset import PairedDataset
from data.volumes.volume import Volume
from data.windows import IntensityWindow, WindowPolicy
from util.errors import UserError

POLICY = WindowPolicy("window", IntensityWindow(-1000, 500), IntensityWindow(0, 150))


def make_volume(array: np.ndarray, source: str = "ct.nii.gz") -> Volume:
    return Volume(array=array, affine=np.eye(4), source=source)


def pair(seed: int) -> tuple[Volume, Volume]:
    """A truth of noise in units of a tenth of HU above air, and its area average in HU."""
    truth = np.random.default_rng(seed).integers(0, 150, (3, 80, 96)).astype(np.float32)
    average = truth.reshape(3, 20, 4, 24, 4).mean((2, 4)) * 10 - 1000
    return make_volume(average, f"ct{seed}.nii.gz"), make_volume(truth, f"micro{seed}.nii.gz")


def make_dataset(**changes: Any) -> PairedDataset:
    pairs = [pair(0), pair(1)]
    clinical = changes.pop("clinical", [(clinical, None) for clinical, _ in pairs])
    truths = changes.pop("truths", [truth for _, truth in pairs])
    settings = {"clinical_patch_size": 6, "patches_per_volume": 20, **changes}
    return dataset_of(PairedDataset, clinical, truths, POLICY, **settings)


def test_items_show_the_same_place_in_both_flipped_alike() -> None:
    dataset = make_dataset()
    assert len(dataset) == 40
    for item in dataset:
        assert item["clinical"].shape == (1, 6, 6)
        assert item["micro"].shape == (1, 24, 24)
        average = torch.nn.functional.avg_pool2d(item["micro"], 4)
        torch.testing.assert_close(average, item["clinical"], atol=1e-5, rtol=0)


def test_every_flip_and_volume_is_met() -> None:
    ramp = np.broadcast_to(np.arange(96, dtype=np.float32), (1, 80, 96))
    average = ramp.reshape(1, 20, 4, 24, 4).mean((2, 4)) * 10 - 1000
    dataset = make_dataset(
        clinical=[(make_volume(average), None)], truths=[make_volume(ramp)], patches_per_volume=30
    )
    slopes = {
        float(torch.sign(item["micro"][0, 0, 1] - item["micro"][0, 0, 0])) for item in dataset
    }
    assert slopes == {-1.0, 1.0}
    first, second = make_dataset()[0], make_dataset()[1]
    assert not torch.equal(first["micro"], second["micro"])


def test_patch_centres_lie_in_the_mask() -> None:
    mask = np.zeros((3, 20, 24), np.uint8)
    mask[1, 9:11, 4:20] = 1
    clinical, truth = pair(0)
    dataset = make_dataset(clinical=[(clinical, mask)], truths=[truth], flip=False)
    unit = POLICY.clinical.to_unit(clinical.array[1])
    rows = [unit[row : row + 6] for row in (6, 7)]
    for item in dataset:
        patch = item["clinical"][0].numpy()
        windows = [np.lib.stride_tricks.sliding_window_view(band, (6, 6)) for band in rows]
        assert any(np.isclose(window, patch).all((-1, -2)).any() for window in windows)
    assert dataset.patch_counts() == [32, 32]


def test_unpaired_volumes_are_refused() -> None:
    clinical, truth = pair(0)
    with pytest.raises(UserError, match=r"2 clinical and 1 micro volumes: give one truth"):
        make_dataset(truths=[truth])
    cut = make_volume(truth.array[:, :, :-4], "cut.nii.gz")
    message = r"cut\.nii\.gz has 92x80x3 voxels, expected 96x80x3, 4 times ct0\.nii\.gz in plane"
    with pytest.raises(UserError, match=message):
        make_dataset(clinical=[(clinical, None)], truths=[cut])
