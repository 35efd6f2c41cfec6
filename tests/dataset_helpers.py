"""Patch data sets made from volumes and a few settings that differ from plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from data.patches import PatchDataset, PatchSettings
from data.training_data import TrainingData
from data.unpaired_dataset import UnpairedDataset
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy

MICRO_WINDOW = IntensityWindow(0, 1000)
POLICY = WindowPolicy("window", CLINICAL_WINDOW, MICRO_WINDOW)
SETTINGS = PatchSettings(
    clinical_patch_size=8,
    micro_patch_size=32,
    scale=4,
    patches_per_volume=10,
    seed=7,
    micro_mix=0.25,
    degradation="area",
    flip=True,
    serial=False,
    fresh=True,
    max_size=None,
    sampling="by_volume",
    match_spacing=False,
)

Kind = TypeVar("Kind", bound=PatchDataset)


def dataset_of(
    kind: type[Kind],
    clinical: Sequence[tuple[Volume, np.ndarray | None]],
    micro: Sequence[Volume],
    windows: WindowPolicy,
    **changes: Any,
) -> Kind:
    """A data set of these volumes, with `SETTINGS` but for the changes."""
    data = TrainingData(list(clinical), list(micro), windows, [])
    return kind(data, replace(SETTINGS, **changes))


def make_volume(array: np.ndarray, source: str) -> Volume:
    return Volume(array=array, affine=np.eye(4), source=source)


def clinical_volume(seed: int = 0) -> Volume:
    voxels = np.random.default_rng(seed).integers(-1000, 500, (4, 30, 40), dtype=np.int16)
    return make_volume(voxels, f"ct{seed}.nii.gz")


def micro_volume(seed: int = 0) -> Volume:
    voxels = np.random.default_rng(100 + seed).integers(0, 1000, (3, 70, 60), dtype=np.uint16)
    return make_volume(voxels, f"micro{seed}.tif")


def make_dataset(**changes: Any) -> UnpairedDataset:
    volumes: dict[str, Any] = {
        "clinical": [(clinical_volume(0), None), (clinical_volume(1), None)],
        "micro": [micro_volume(0), micro_volume(1), micro_volume(2)],
        "windows": POLICY,
    }
    volumes |= {name: changes.pop(name) for name in volumes if name in changes}
    return dataset_of(UnpairedDataset, **volumes, **changes)


def is_patch_of(patch: np.ndarray, unit: np.ndarray) -> bool:
    """Whether the patch, mirrored or not, occurs in the volume `unit` (z, y, x)."""
    size = patch.shape[0]
    for mirrored in (patch, patch[::-1], patch[:, ::-1], patch[::-1, ::-1]):
        corner = unit[:, : unit.shape[1] - size + 1, : unit.shape[2] - size + 1] == mirrored[0, 0]
        for z, y, x in np.argwhere(corner):
            if np.array_equal(unit[z, y : y + size, x : x + size], mirrored):
                return True
    return False
