"""Train SR-CycleGAN. `python train.py --help` lists every option.

Reads top to bottom: options, devices, data, model, then the loop over epochs and steps. The
mathematics of a step is in models/medical_cycle_gan.py.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from options import TrainOptions
from options.base_options import PHANTOM_FOLDER, format_options
from util.devices import choose_devices, count_gpus, warn_of_emulated_bf16
from util.errors import EXIT_INTERRUPTED, UserError, run_command_line

if TYPE_CHECKING:
    from data.datasets import PatchSettings
    from data.training_data import TrainingData


def main(arguments: list[str]) -> int:
    """Train by command-line words; returns the exit code."""
    options, parser = TrainOptions().parse(arguments, count_gpus)
    print(f"options\n{format_options(parser, options)}\n")
    return train(options)


def train(options: argparse.Namespace) -> int:
    """Train until the last epoch or a request to stop; returns the exit code."""
    # Imported here, not above, so that --help and a wrong flag answer before torch is loaded.
    import torch
    from torch.utils.data import DataLoader

    from data.datasets import DATASETS
    from data.sampler import EpochSampler
    from models.checkpoints import (
        prune_checkpoints,
        remember_experiment,
        superseded_checkpoints,
    )
    from models.medical_cycle_gan import LOSSES, MODELS
    from models.networks import all_finite, count_parameters
    from models.training_state import save_training_state, start_or_resume
    from util.files import write_json, write_text
    from util.interrupt import StopRequest, ignore_interrupts
    from util.loss_log import NonFiniteLossError
    from util.progress import progress
    from util.run_record import write_run_record
    from util.seeds import seed_everything
    from util.training_monitor import TrainingMonitor

    folder = Path(options.checkpoints_dir) / options.name
    devices = choose_devices(options.gpu_ids)
    if options.precision == "bf16":
        warn_of_emulated_bf16(devices[0])
    print(preset_line(options, devices[0].type))
    seed_everything(options.seed)

    model = MODELS[options.model](options, devices)
    start = start_or_resume(folder, options, model)
    position = start.position
    last_epoch = options.niter + options.niter_decay
    if position.epoch > last_epoch:
        raise UserError(
            f"{folder} is trained to its last epoch {last_epoch} (niter + niter_decay): give a "
            "larger --niter to go on"
        )
    data = open_data(options, start.windows)
    digests = sorted(start.digests.union(data.digests))
    dataset = DATASETS[options.dataset_mode](data, patch_settings(options))
    if position.offset > len(dataset):
        raise UserError(
            f"{folder} goes on after {position.offset} patches of its epoch, but an epoch now has "
            f"{len(dataset)}: leave out what shortened it (--batch_num, --max_dataset_size)"
        )
    sampler = EpochSampler(len(dataset), options.seed, shuffle=not options.serial_batches)
    loader = DataLoader(
        dataset,
        batch_size=options.batch_size,
        sampler=sampler,
        num_workers=options.num_threads,
        worker_init_fn=ignore_interrupts,
        persistent_workers=options.num_threads > 0,
        pin_memory=devices[0].type == "cuda",
        # A generator of its own, so that starting an epoch's workers draws no global number.
        generator=torch.Generator().manual_seed(options.seed),
    )
    steps_an_epoch = -(-len(dataset) // options.batch_size)
    print(data.describe())
    print(
        ", ".join(f"{name} {count_parameters(net):,}" for name, net in model.networks.items())
        + f" parameters; {len(dataset)} patches and {steps_an_epoch} steps an epoch, "
        f"{last_epoch} epochs"
    )
    fresh = not options.continue_train
    superseded = superseded_checkpoints(folder, position.epoch, position.step, fresh)
    write_text(folder / "options.txt", format_options(TrainOptions().build(), options) + "\n")
    write_json(folder / "options.json", vars(options))
    saved_at = time.monotonic()
    monitor = TrainingMonitor(folder, LOSSES, options, position.step)

    def save(*names: str) -> None:
        """Write checkpoints under `names`; refuses to keep a step that was not finite."""
        nonlocal saved_at
        monitor.flush()
        for name, network in model.networks.items():
            if not all_finite(network):
                raise UserError(
                    f"weights of {name} are not finite after step {position.step}: go on with a "
                    f"lower learning rate, or without mixed precision; {last_good(folder)}"
                )
        save_training_state(
            [folder / f"{name}.pt" for name in names],
            model,
            options,
            position,
            data.windows.as_dict(),
            digests,
        )
        written = {folder / f"{name}.pt" for name in names}
        while superseded:  # only now, so that a run which fails before its first save loses nothing
            path = superseded.pop()
            if path not in written:
                path.unlink(missing_ok=True)
        saved_at = time.monotonic()
        prune_checkpoints(folder, options.keep)
        remember_experiment(Path(options.checkpoints_dir), options.name)

    def record(status: str) -> None:
        """Write run.json."""
        write_run_record(
            folder / "run.json",
            vars(options),
            str(devices[0]),
            status=status,
            seed=options.seed,
            steps=position.step,
            data=data.sources,
            windows=data.windows.as_dict(),
            outputs=[str(folder / "latest.pt")],
        )

    def is_old() -> bool:
        """Whether --save_every_minutes have gone by since the last checkpoint."""
        minutes = options.save_every_minutes
        return minutes is not None and time.monotonic() - saved_at >= 60 * minutes

    record("started")
    try:
        with StopRequest() as stop:
            for epoch in range(position.epoch, last_epoch + 1):
                sampler.set_position(epoch - 1, position.offset)
                batches = progress(loader, f"epoch {epoch}/{last_epoch}", unit="step")
                for batch in batches:
                    model.set_input(batch)
                    model.optimize_parameters()
                    position.advance(len(batch["micro"]), model.losses["G"])
                    monitor.record(epoch, position.step, model.losses)

                    if position.step % options.print_freq == 0:
                        share = min(position.offset, len(dataset)) / len(dataset)
                        batches.set_postfix_str(monitor.report(epoch - 1 + share))
                    if position.step % options.display_freq == 0:
                        monitor.show_pictures(model.pictures())
                    if position.step % options.update_html_freq == 0:
                        monitor.write_page(epoch, position.step, model.pictures())
                    if position.step % options.save_latest_freq == 0:
                        numbered = [f"iter_{position.step}"] if options.save_by_iter else []
                        save("latest", *numbered)
                    elif is_old():
                        save("latest")
                    if stop.requested is not None:
                        save("latest")
                        record("stopped")
                        batches.close()
                        print(
                            f"stopped after step {position.step} (epoch {epoch}); go on with: "
                            f"{resume_command(options)}",
                            file=sys.stderr,
                        )
                        return EXIT_INTERRUPTED
                batches.close()
                model.end_epoch(position.mean_loss())
                monitor.write_page(epoch, position.step, model.pictures())
                position.next_epoch()
                is_kept = epoch % options.save_epoch_freq == 0 or epoch == last_epoch
                save("latest", *([f"epoch_{epoch}"] if is_kept else []))
    except NonFiniteLossError as error:
        raise UserError(f"{error}; {last_good(folder)}") from error
    record("finished")
    print(f"trained: {folder / 'latest.pt'}; try it with: bash test.sh")
    return 0


def last_good(folder: Path) -> str:
    """Names the checkpoint that a run which diverged can go on from."""
    from models.checkpoints import checkpoint_path

    latest = checkpoint_path(folder, "latest", 0)
    return f"last good checkpoint: {latest}" if latest.is_file() else "no checkpoint before it"


def resume_command(options: argparse.Namespace) -> str:
    """The command line that goes on with this run."""
    words = ["bash", "run.sh", "--continue_train", "--name", options.name]
    if options.checkpoints_dir != TrainOptions().build().get_default("checkpoints_dir"):
        words += ["--checkpoints_dir", options.checkpoints_dir]
    return shlex.join(words)


def open_data(
    options: argparse.Namespace, stored_windows: Mapping[str, Any] | None
) -> TrainingData:
    """Open the volumes that the options name, or the phantom."""
    from data.training_data import open_training_data

    scale = 2**options.sampling_times
    folders = {"clinical": options.clinical_folder, "micro": options.micro_folder}
    return open_training_data(
        dataset_mode=options.dataset_mode,
        clinical_words=[*filter(None, [folders["clinical"]]), *(options.all_clinical_paths or [])],
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
        say=print,
    )


def patch_settings(options: argparse.Namespace) -> PatchSettings:
    """The options that say how patches are drawn."""
    from data.datasets import PatchSettings

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
    )


def preset_line(options: argparse.Namespace, device: str) -> str:
    """Which preset is used, on what, and how to get the other."""
    other = "published" if options.preset == "demo" else "demo"
    purpose = {
        "published": "the paper's sizes and schedule, meant for a GPU",
        "demo": "small networks and few steps, minutes on a CPU",
    }[other]
    return f"preset {options.preset} on {device}; --preset {other}: {purpose}"


if __name__ == "__main__":
    sys.exit(run_command_line(main, sys.argv[1:]))
