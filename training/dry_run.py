"""--dry_run of train.py: the data, the schedule, and steps that are measured but not kept."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import torch

from data.formats.discovery import find_volumes
from models.medical_cycle_gan import MODELS
from options.base_options import PHANTOM_FOLDER
from training.summary import summary
from util.devices import choose_devices
from util.quantities import format_bytes, format_seconds

MEASURED_STEPS = 2
PHANTOM_PATIENTS = 2  # that it trains on, see data/phantom/training_set.py
DOMAIN_WORDS = {"clinical": "clinical CT", "micro": "micro-CT"}


def dry_run(options: Namespace) -> int:
    """Tell what the run would do; writes nothing.

    Patches of noise stand in for the data, whose opening (unpacking, lung masks) is not part of
    the guess.

    Returns:
        Exit code 0.
    """
    print("dry run: nothing is written")
    print(f"experiment  {experiment_state(Path(options.checkpoints_dir) / options.name, options)}")
    counts = {"clinical": PHANTOM_PATIENTS}
    for domain, words in data_words(options).items():
        if words:
            paths = find_volumes(words)
            counts[domain] = len(paths)
            size = format_bytes(sum(total_size(path) for path in paths))
            print(f"{DOMAIN_WORDS[domain]}  {len(paths)} volumes, {size} on disk")
    if not any(data_words(options).values()):
        folder = Path(PHANTOM_FOLDER) / f"x{2**options.sampling_times}"
        state = "is there" if folder.is_dir() else "would be made"
        print(f"data  the digital lung phantom in {folder} ({state})")
    print(summary(options))
    epochs = options.niter + options.niter_decay
    seconds = seconds_per_step(options)
    patches = options.batch_num * counts["clinical"]
    if options.max_dataset_size:
        patches = min(patches, options.max_dataset_size)
    steps = -(-patches // options.batch_size)
    print(
        f"time  {seconds:.2f} s a step, measured; an epoch of {patches} patches is {steps} steps, "
        f"{format_seconds(seconds * steps)}; all {epochs} epochs "
        f"{format_seconds(seconds * steps * epochs)}"
    )
    return 0


def data_words(options: Namespace) -> dict[str, list[str]]:
    """Words of the command line that name volumes, by domain."""
    return {
        "clinical": [
            *filter(None, [options.clinical_folder]), *(options.all_clinical_paths or []),
        ],
        "micro": [*filter(None, [options.micro_folder]), *(options.all_micro_paths or [])],
    }  # fmt: skip


def experiment_state(folder: Path, options: Namespace) -> str:
    """What would happen to the experiment's folder."""
    if not any(folder.glob("*.pt")):
        return f"{folder}, new"
    if options.continue_train:
        return f"{folder}, would go on"
    if options.overwrite:
        return f"{folder}, would be replaced (--overwrite)"
    return f"{folder} holds a model already: --continue_train, --overwrite or another --name"


def total_size(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.iterdir() if one.is_file())
    return path.stat().st_size if path.exists() else 0


def seconds_per_step(options: Namespace) -> float:
    """Time of a training step on patches of noise; the first steps, which set up, do not count."""
    devices = choose_devices(options.gpu_ids)
    model = MODELS[options.model](options, devices[:1])
    shape = (options.batch_size, 1)
    batch = {
        "clinical": torch.rand(*shape, *[options.clinical_patch_size] * 2) * 2 - 1,
        "micro": torch.rand(*shape, *[options.micro_patch_size] * 2) * 2 - 1,
    }
    fastest = float("inf")
    for _ in range(1 + MEASURED_STEPS):
        start = time.perf_counter()
        model.set_input(batch)
        model.optimize_parameters()
        float(model.losses["G"])  # waits for the device
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
