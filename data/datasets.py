"""The registry of training data sets, by the name of --dataset_mode."""

from __future__ import annotations

from collections.abc import Callable

from data.paired_dataset import PairedDataset
from data.patches import PatchDataset, PatchSettings
from data.public_dataset import PublicDataset
from data.training_data import TrainingData
from data.unpaired_dataset import UnpairedDataset


def make_unpaired(data: TrainingData, settings: PatchSettings) -> PatchDataset:
    """Clinical patches inside the lung and unpaired micro patches (the paper's setting)."""
    return UnpairedDataset(
        data.clinical,
        data.micro,
        data.windows,
        patch_size=settings.clinical_patch_size,
        scale=settings.scale,
        patches_per_volume=settings.patches_per_volume,
        seed=settings.seed,
        micro_mix=settings.micro_mix,
        degradation=settings.degradation,
        flip=settings.flip,
        serial=settings.serial,
        fresh=settings.fresh,
        max_size=settings.max_size,
        sampling=settings.sampling,
        micro_spacing=data.clinical_spacing / settings.scale if settings.match_spacing else None,
    )


def make_public(data: TrainingData, settings: PatchSettings) -> PatchDataset:
    """Clinical CT alone, shrunk by itself (the public setting)."""
    return PublicDataset(
        data.clinical,
        data.windows,
        hr_size=settings.micro_patch_size,
        scale=settings.scale,
        patches_per_volume=settings.patches_per_volume,
        seed=settings.seed,
        degradation=settings.degradation,
        flip=settings.flip,
        fresh=settings.fresh,
        max_size=settings.max_size,
        sampling=settings.sampling,
    )


def make_paired(data: TrainingData, settings: PatchSettings) -> PatchDataset:
    """Registered pairs, for supervised training as an upper bound."""
    return PairedDataset(
        data.clinical,
        data.micro,
        data.windows,
        patch_size=settings.clinical_patch_size,
        scale=settings.scale,
        patches_per_volume=settings.patches_per_volume,
        seed=settings.seed,
        flip=settings.flip,
        fresh=settings.fresh,
        max_size=settings.max_size,
        sampling=settings.sampling,
    )


DATASETS: dict[str, Callable[[TrainingData, PatchSettings], PatchDataset]] = {
    "unpaired": make_unpaired,
    "public_2D": make_public,
    "paired": make_paired,
}
