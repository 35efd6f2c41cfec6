"""The registry of training data sets, by the name of --dataset_mode."""

from __future__ import annotations

from data.paired_dataset import PairedDataset
from data.patches import PatchDataset
from data.public_dataset import PublicDataset
from data.unpaired_dataset import UnpairedDataset

DATASETS: dict[str, type[PatchDataset]] = {
    "unpaired": UnpairedDataset,  # the paper's setting
    "public_2D": PublicDataset,
    "paired": PairedDataset,
}
