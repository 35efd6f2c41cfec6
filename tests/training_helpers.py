"""Small models and volumes that several tests need."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from data.writing.nifti_writer import write_volume
from models.checkpoints.experiment_folder import remember_experiment
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from options import TrainOptions
from training.state import Position, process_state, save_training_state

TINY = (
    "--ngf",
    "4",
    "--ndf",
    "2",
    "--sampling_times",
    "1",
    "--batch_size",
    "2",
    "--lambda_identity",
    "0.2",
)


def tiny_options(*words: str) -> Namespace:
    options, _ = TrainOptions().parse([*TINY, *words], lambda: 0)
    return options


def tiny_model(*words: str) -> MedicalCycleGANModel:
    options = tiny_options(*words)
    torch.manual_seed(options.seed)
    return MODELS[options.model](options, torch.device("cpu"))


def tiny_batch(seed: int = 0, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "clinical": torch.rand(count, 1, 32, 32, generator=generator) * 2 - 1,
        "micro": torch.rand(count, 1, 64, 64, generator=generator) * 2 - 1,
    }


def write_case(folder: Path, name: str, size: tuple[int, int, int], seed: int = 0) -> Path:
    """A smooth random CT-like volume with its mask (all lung but a rim) beside it."""
    x, y, z = size
    rng = np.random.default_rng(seed)
    array = rng.normal(-800, 60, (z, y, x)).astype(np.int16)
    array[:, :2] = 40
    mask = np.zeros((z, y, x), dtype=np.int16)
    mask[:, 2:-2, 2:-2] = 1
    affine = np.diag([-0.7, -0.7, 1.25, 1.0])
    affine[:3, 3] = (100.0, 90.0, -30.0)
    path = folder / f"{name}.nii.gz"
    write_volume(path, array, affine)
    write_volume(folder / f"{name}_mask.nii.gz", mask, affine)
    return path


def write_micro(folder: Path, name: str, size: tuple[int, int, int], seed: int = 7) -> Path:
    x, y, z = size
    rng = np.random.default_rng(seed)
    array = rng.integers(100, 9000, (z, y, x)).astype(np.int16)
    path = folder / f"{name}.nii"
    write_volume(path, array, np.diag([0.05, 0.05, 0.05, 1.0]))
    return path


def write_checkpoint(folder: Path, name: str, *words: str, seed: int = 0) -> Path:
    """A model of random weights in `folder`/`name`, as train.py leaves it after five steps."""
    model = tiny_model("--seed", str(seed), *words)
    path = folder / name / "latest.pt"
    windows = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(0, 10000)).as_dict()
    position = Position(1, offset=5, step=5)
    save_state(path, model, position, windows)
    remember_experiment(folder, name)
    return path


def save_state(
    path: Path,
    model: MedicalCycleGANModel,
    position: Position,
    windows: Mapping[str, Any] | None = None,
    digests: Sequence[str] = (),
) -> None:
    """Save a training run of one process."""
    own = [process_state(model)]
    save_training_state([path], model, model.options, position, windows or {}, digests, {}, own)


# Steps of some ten milliseconds: 1x1 discriminators let the patches be 8 pixels small.
TINY_RUN = (
    "--preset", "demo", "--gpu_ids", "-1", "--num_threads", "0", "--sampling_times", "1",
    "--ngf", "4", "--ndf", "2", "--netD", "pixel", "--clinical_patch_size", "8",
    "--clinical2micronetG", "sr_resnet_6blocks", "--micro2clinicalnetG", "resnet_6blocks",
    "--batch_size", "2", "--batch_num", "5", "--lr", "1e-3", "--niter", "2", "--niter_decay", "1",
)  # fmt: skip
TINY_STEPS = 9  # three epochs of three steps, the last of each with one patch


def write_training_data(folder: Path) -> tuple[str, ...]:
    """Write a clinical and a micro volume; returns the words that name them."""
    clinical = write_case(folder / "clinical", "ct", (24, 20, 3))
    micro = write_micro(folder / "micro", "specimen", (40, 36, 3))
    return ("--all_clinical_paths", str(clinical), "--all_micro_paths", str(micro))


def loss_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's loss_log.csv."""
    with (folder / "loss_log.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
