"""From the parsed options to the volumes and patches of a run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.patches import PatchSettings
from data.training_data import TrainingData, open_training_data
from options.base_options import PHANTOM_FOLDER
from util.processes import Processes


def open_data(
    options: Namespace,
    stored_windows: Mapping[str, Any] | None,
    processes: Processes,
    say: Callable[[str], None],
) -> TrainingData:
    """Open the volumes that the options name, or the phantom.

    The first process opens them before the others do, so that one alone unpacks volumes, computes
    lung masks and generates the phantom; the others find its files.
    """
    scale = 2**options.sampling_times
    folders = {"clinical": options.clinical_folder, "micro": options.micro_folder}

    def opened() -> TrainingData:
        return open_training_data(
            dataset_mode=options.dataset_mode,
            clinical_words=[
                *filter(None, [folders["clinical"]]),
                *(options.all_clinical_paths or []),
            ],
            micro_words=[*filter(None, [folders["micro"]]), *(options.all_micro_paths or [])],
            phantom_folder=Path(PHANTOM_FOLDER) / f"x{scale}",
            scale=scale,
            cache_dir=Path(options.cache_dir) if options.cache_dir else None,
            mask_folder=Path(options.maskdatafolder) if options.maskdatafolder else None,
            spacing=options.micro_spacing,
            slices=options.slices,
            normalization=options.normalization,
            window_words=options.windows,
            stored_windows=stored_windows,
            micro_axes=options.micro_axes,
            say=say,
        )

    if not processes.is_first:
        processes.wait()
        return opened()
    data = opened()
    processes.wait()
    return data


def patch_settings(options: Namespace) -> PatchSettings:
    """The options that say how patches are drawn."""
    return PatchSettings(
        clinical_patch_size=options.clinical_patch_size,
        micro_patch_size=options.micro_patch_size,
        scale=2**options.sampling_times,
        patches_per_volume=options.batch_num,
        seed=options.seed,
        micro_mix=options.micro_mix,
        degradation=options.degradation,
        flip=not options.no_flip,
        serial=options.serial_batches,
        fresh=not options.fixed_patches,
        max_size=options.max_dataset_size,
        sampling=options.sampling,
        match_spacing=options.match_spacing,
    )
