"""Train SR-CycleGAN. `python train.py --help` lists every option.

Reads top to bottom: options, devices, data, model, then the loop over epochs and steps. The
mathematics of a step is in models/medical_cycle_gan.py, what surrounds the loop in training/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from options import TrainOptions
from options.base_options import format_options
from util.devices import choose_devices, count_gpus, warn_of_emulated_bf16
from util.errors import EXIT_INTERRUPTED, UserError, run_command_line
from util.processes import join_processes, leave_processes, own_device, process_place


def main(arguments: list[str]) -> int:
    """Train by command-line words; returns the exit code."""
    options, parser = TrainOptions().parse(arguments, count_gpus)
    if options.summary:
        from training.dry_run import summary

        print(summary(options))
        return 0
    if options.dry_run:
        from training.dry_run import dry_run

        return dry_run(options)
    if process_place()[0] == 0:
        print(f"options\n{format_options(parser, options)}\n")
    return train(options)


def train(options: argparse.Namespace) -> int:
    """Train until the last epoch or a request to stop; returns the exit code."""
    # Imported here, not above, so that --help and a wrong flag answer before torch is loaded.
    import torch
    from torch.utils.data import DataLoader

    from data.datasets import DATASETS
    from data.sampling import EpochSampler
    from models.medical_cycle_gan import LOGGED, MODELS
    from models.networks import count_parameters
    from training.monitor.loss_log import NonFiniteLossError
    from training.monitor.training_monitor import TrainingMonitor
    from training.saver import RunSaver, last_good, resume_command
    from training.setup import open_data, patch_settings
    from training.state import start_or_resume
    from training.validation import (
        SCORES,
        Validator,
        describe,
        has_held_back,
        is_better,
        make_samples,
        open_held_back,
    )
    from util.interrupt import StopRequest, ignore_interrupts
    from util.progress import progress
    from util.seeds import seed_everything

    folder = Path(options.checkpoints_dir) / options.name
    devices = own_device(choose_devices(options.gpu_ids))
    processes = join_processes(devices[0])

    def say(line: str) -> None:
        """Print, in the first process."""
        if processes.is_first:
            print(line)

    if options.precision == "bf16" and processes.is_first:
        warn_of_emulated_bf16(devices[0])
    say(preset_line(options, devices[0].type))
    # Equal weights in all processes, and then chances of their own.
    seed_everything(options.seed)
    model = MODELS[options.model](options, devices, processes)
    if not processes.is_first:
        seed_everything(options.seed + processes.rank)
    start = start_or_resume(folder, options, model, say)
    position = start.position
    last_epoch = options.niter + options.niter_decay
    if position.epoch > last_epoch:
        raise UserError(
            f"{folder} is trained to its last epoch {last_epoch} (niter + niter_decay): give a "
            "larger --niter to go on"
        )
    data = open_data(options, start.windows, processes, say)
    digests = sorted(start.digests.union(data.digests))
    dataset = DATASETS[options.dataset_mode](data, patch_settings(options))
    if position.offset > len(dataset):
        raise UserError(
            f"{folder} goes on after {position.offset} patches of its epoch, but an epoch now has "
            f"{len(dataset)}: leave out what shortened it (--batch_num, --max_dataset_size)"
        )
    if len(dataset) < processes.count:
        raise UserError(
            f"an epoch of {len(dataset)} patches cannot be shared among {processes.count} "
            "processes: give a larger --batch_num, or start fewer processes"
        )
    sampler = EpochSampler(
        len(dataset),
        options.seed,
        shuffle=not options.serial_batches,
        rank=processes.rank,
        processes=processes.count,
    )
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
    steps = -(-(len(dataset) // processes.count) // options.batch_size)
    shared = f"; {processes.count} processes" if processes.count > 1 else ""
    if processes.is_first:
        print(data.describe(dataset.patch_counts()))
    say(
        ", ".join(f"{name} {count_parameters(net):,}" for name, net in model.networks.items())
        + f" parameters; {len(dataset)} patches and {steps} steps an "
        f"epoch, {last_epoch} epochs{shared}"
    )
    validator = None
    if processes.is_first and has_held_back(options):  # the others only wait for what it finds
        held_back = open_held_back(options, data, digests)
        validator = Validator(make_samples(held_back, data, options), model.scale)
        count = len(validator.samples)
        say(f"{count} squares of held-back slices are scored every {options.val_freq} epochs")
    monitor = TrainingMonitor(
        folder, LOGGED, options, position.step, position.epoch - 1, SCORES, processes.is_first
    )
    if position.best_metric != options.val_metric:
        position.best, position.best_metric = None, options.val_metric
    saver = RunSaver(folder, options, model, position, data, digests)

    def save(*names: str) -> None:
        """Save once the losses so far are known to be finite and written."""
        monitor.flush()
        saver.save(*names)

    saver.record("started")
    try:
        with StopRequest(patient=processes.count > 1) as stop:
            for epoch in range(position.epoch, last_epoch + 1):
                sampler.set_position(epoch - 1, position.offset)
                title = f"epoch {epoch}/{last_epoch}"
                batches = progress(loader, title, unit="step", hidden=not processes.is_first)
                for batch in batches:
                    model.set_input(batch)
                    model.optimize_parameters()
                    position.advance(len(batch["micro"]) * processes.count, model.losses["G"])
                    monitor.record(epoch, position.step, model.losses)

                    if position.step % options.print_freq == 0:
                        share = min(position.offset, len(dataset)) / len(dataset)
                        batches.set_postfix_str(monitor.report(epoch - 1 + share))
                    if position.step % options.display_freq == 0:
                        monitor.show_pictures(position.step, model.pictures())
                    if position.step % options.update_html_freq == 0:
                        monitor.write_page(epoch, position.step, model.pictures())
                    stopping, is_old = processes.any(stop.requested is not None, saver.is_old())
                    if position.step % options.save_latest_freq == 0:
                        numbered = [f"iter_{position.step}"] if options.save_by_iter else []
                        save("latest", *numbered)
                    elif is_old or stopping:
                        save("latest")
                    if stopping:
                        monitor.finish()
                        saver.record("stopped")
                        batches.close()
                        # torchrun ends the others as soon as one has left.
                        processes.wait()
                        leave_processes(processes)
                        if processes.is_first:
                            print(
                                f"stopped after step {position.step} (epoch {epoch}); go on with: "
                                f"{resume_command(options)}",
                                file=sys.stderr,
                            )
                        return EXIT_INTERRUPTED
                batches.close()
                model.end_epoch(position.mean_loss())
                names = []
                is_scored = has_held_back(options) and epoch % options.val_freq == 0
                if is_scored:
                    mine = None if validator is None else validator.score(model)
                    scores = processes.from_first(mine)
                    monitor.validated(epoch, position.step, scores)
                    say(f"epoch {epoch}: {describe(scores)}")
                    if is_better(options.val_metric, scores[options.val_metric], position.best):
                        position.best, position.best_epoch = scores[options.val_metric], epoch
                        names.append("best")
                monitor.write_page(epoch, position.step, model.pictures())
                position.next_epoch()
                if epoch % options.save_epoch_freq == 0 or epoch == last_epoch:
                    names.append(f"epoch_{epoch}")
                # The latest one last: it says that the others are there.
                save(*names, "latest")
                waited = (epoch - position.best_epoch) // options.val_freq
                if is_scored and options.patience and waited >= options.patience:
                    say(
                        f"no better {options.val_metric} in {waited} validations since epoch "
                        f"{position.best_epoch}: stopping; best.pt holds that epoch"
                    )
                    break
    except NonFiniteLossError as error:
        raise UserError(f"{error}; {last_good(folder)}") from error
    monitor.finish()
    saver.record("finished")
    leave_processes(processes)
    say(f"trained: {folder / 'latest.pt'}; try it with: bash test.sh")
    return 0


def preset_line(options: argparse.Namespace, device: str) -> str:
    """Which preset is used, on what, and how to get the other."""
    other = "paper" if options.preset == "demo" else "demo"
    purpose = {
        "paper": "the paper's sizes and schedule, meant for a GPU",
        "demo": "small networks and few steps, minutes on a CPU",
    }[other]
    return f"preset {options.preset} on {device}; --preset {other}: {purpose}"


if __name__ == "__main__":
    sys.exit(run_command_line(main, sys.argv[1:]))
