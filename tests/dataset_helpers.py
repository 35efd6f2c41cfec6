"""Patch data sets made from volumes and a few settings that differ from plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from data.patches import PatchDataset, PatchSettings
from data.training_data import TrainingData
from data.volumes.volume import Volume
from data.windows import WindowPolicy

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
