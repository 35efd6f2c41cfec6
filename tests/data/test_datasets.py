"""Tests for data/datasets.py: every setting reaches the data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.datasets import DATASETS
from data.patches import PatchDataset, PatchSettings
from data.public_dataset import PublicDataset
from data.training_data import TrainingData
from data.unpaired_dataset import UnpairedDataset
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from options.train_options import TrainOptions

SETTINGS = PatchSettings(
    clinical_patch_size=8,
    micro_patch_size=16,
    scale=2,
    patches_per_volume=6,
    seed=3,
    micro_mix=0.0,
    degradation="area",
    flip=True,
    serial=False,
    fresh=True,
    max_size=None,
    sampling="by_volume",
    match_spacing=False,
)


def volume(seed: int, low: int, high: int, size: int) -> Volume:
    voxels = np.random.default_rng(seed).integers(low, high, (3, size, size), dtype=np.int16)
    return Volume(voxels, np.eye(4), f"volume{seed}")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    clinical: list[tuple[Volume, np.ndarray | None]] = [
        (volume(seed, -1000, 500, 32), None) for seed in range(2)
    ]
    micro = [volume(9, 0, 1000, 40)]
    windows = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(0, 1000))
    return TrainingData(clinical, micro, windows, [])


def items(dataset: PatchDataset, keys: range = range(12)) -> dict[str, torch.Tensor]:
    made = [dataset[key] for key in keys]
    return {domain: torch.stack([item[domain] for item in made]) for domain in made[0]}


def test_the_registry_holds_the_modes_of_the_option() -> None:
    (choices,) = (a.choices for a in TrainOptions().build()._actions if a.dest == "dataset_mode")
    assert choices is not None
    assert set(DATASETS) == set(choices)


@pytest.mark.parametrize(
    ("mode", "kind"), [("unpaired", UnpairedDataset), ("public_2D", PublicDataset)]
)
def test_shapes_ranges_and_length(data: TrainingData, mode: str, kind: type) -> None:
    dataset = DATASETS[mode](data, SETTINGS)
    assert isinstance(dataset, kind)
    assert len(dataset) == 2 * 6
    batch = items(dataset)
    assert batch["clinical"].shape == (12, 1, 8, 8)
    assert batch["micro"].shape == (12, 1, 16, 16)
    for images in batch.values():
        assert images.dtype == torch.float32
        assert float(images.abs().max()) <= 1


@pytest.mark.parametrize("mode", ["unpaired", "public_2D"])
@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"flip": False}, {"fresh": False}, {"degradation": "zoom"}, {"micro_mix": 1.0},
     {"serial": True}],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_items(
    data: TrainingData, mode: str, change: dict[str, object]
) -> None:
    plain = replace(SETTINGS, micro_mix=0.5)
    keys = range(12, 24)  # the second epoch, so that fresh patches differ from fixed ones
    if "serial" in change:  # with one micro volume there is nothing to pair by index
        data = replace(data, micro=[*data.micro, volume(10, 0, 1000, 40)])
    before = items(DATASETS[mode](data, plain), keys)
    changed = items(DATASETS[mode](data, replace(plain, **change)), keys)  # type: ignore[arg-type]
    same = all(torch.equal(before[domain], changed[domain]) for domain in before)
    # The public setting has no micro-CT to mix in or to pair with.
    assert same == (mode == "public_2D" and bool(change.keys() & {"micro_mix", "serial"}))


@pytest.mark.parametrize("mode", ["unpaired", "public_2D"])
def test_the_size_is_limited(data: TrainingData, mode: str) -> None:
    assert len(DATASETS[mode](data, replace(SETTINGS, max_size=5))) == 5
    assert len(DATASETS[mode](data, replace(SETTINGS, patches_per_volume=1))) == 2


def test_each_domain_is_drawn_from_its_own_volumes(data: TrainingData) -> None:
    unpaired = items(DATASETS["unpaired"](data, SETTINGS))
    stored = {
        "clinical": np.concatenate([v.array for v, _ in data.clinical]),
        "micro": data.micro[0].array,
    }
    windows = {"clinical": data.windows.clinical, "micro": data.windows.micro}
    for domain, images in unpaired.items():
        values = np.rint(windows[domain].to_physical(images.numpy()))
        assert np.isin(values, stored[domain]).all()
