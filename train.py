"""Train SR-CycleGAN. `python train.py --help` lists every option.

Reads top to bottom: options, then the loop over epochs and steps. What the loop works with is
opened in training/setup.py; the mathematics of a step is in models/medical_cycle_gan.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from options import TrainOptions
from options.base_options import format_options
from options.presets import ALSO_LISTED
from util.devices import count_gpus
from util.disk.cache_folder import cache_in_words
from util.disk.folder_lock import first_owns_folder
from util.errors import EXIT_INTERRUPTED, UserError, run_program
from util.privacy import keep_all
from util.processes import leave_processes, process_place, processes_to_start

if TYPE_CHECKING:
    from training.setup import Run
    from util.interrupt import StopRequest


def main(arguments: list[str]) -> int:
    """Train by command-line words; returns the exit code."""
    options, parser = TrainOptions().parse(arguments, count_gpus)
    keep_all(options.keep_identity)
    # Imported from here on, so that --help and a wrong flag answer before torch is loaded.
    if options.summary:
        from training.dry_run import summary

        print(summary(options))
        return 0
    if options.dry_run:
        from training.dry_run import dry_run

        return dry_run(options)
    if (count := processes_to_start(options.gpu_ids)) > 1:
        from training.launch import launch

        return launch(count, arguments)
    folder = Path(options.checkpoints_dir) / options.name
    with first_owns_folder(folder, "wait for its end, or train another with --name NAME"):
        if process_place()[0] > 0:
            return train(options)
        from training.aside import given_back_unless_saved

        print(f"options\n{format_options(parser, options)}\n")
        with given_back_unless_saved(folder):
            return train(options)


def train(options: argparse.Namespace) -> int:
    """Train until the last epoch or a request to stop; returns the exit code."""
    from training.monitor.loss_log import NonFiniteLossError
    from training.setup import open_run
    from util.interrupt import StopRequest
    from util.progress import progress

    run = open_run(options)
    model, position, processes = run.model, run.position, run.processes
    run.saver.record("started")
    try:
        with StopRequest(patient=processes.count > 1) as stop:

            def stopping() -> bool:
                return stop.requested is not None or processes.is_orphaned

            for epoch in range(position.epoch, run.last_epoch + 1):
                title, steps = f"epoch {epoch}/{run.last_epoch}", run.steps_left()
                loaded = run.loader.batches(steps, stopping)
                batches = progress(loaded, title, "step", steps, hidden=not processes.is_first)
                for batch in batches:
                    model.set_input(batch)
                    model.optimize_parameters()
                    position.advance(len(batch["micro"]) * processes.count, model.losses["G"])
                    run.monitor.record(epoch, position.step, model.losses)
                    if after_step(run, batches, stopping()):
                        batches.close()
                        return stop_early(run)
                batches.close()
                ended = end_epoch(run, stop)
                if ended is None:
                    return stop_early(run)
                if ended:
                    break
    except NonFiniteLossError as error:
        raise UserError(f"{error}; {run.saver.last_good()}") from error
    finally:
        run.loader.close()
    run.monitor.finish()
    run.saver.record("finished")
    leave_processes(processes)
    if verdict := run.verdict():
        print(verdict, file=sys.stderr)
    processes.say(f"trained: {run.folder / 'latest.pt'}; try it with: bash test.sh")
    return 0


def after_step(run: Run, batches: Any, stop_requested: bool) -> bool:
    """Print, show and save what is due after a step; returns whether training stops here.

    Args:
        run: that goes on.
        batches: the progress bar.
        stop_requested: whether this process got a signal.
    """
    options, position, step = run.options, run.position, run.position.step
    if step % options.print_freq == 0:
        share = min(position.offset, len(run.dataset)) / len(run.dataset)
        batches.set_postfix_str(run.monitor.report(position.epoch - 1 + share))
    if step % options.display_freq == 0:
        run.monitor.show_pictures(step, run.model.pictures())
    if step % options.update_html_freq == 0:
        run.monitor.write_page(position.epoch, step, run.model.pictures())
    # All processes stop, and save, after the same step.
    must_stop = stop_requested or run.loader.failure is not None
    stopping, is_old = run.processes.any(must_stop, run.saver.is_old())
    if step % options.save_latest_freq == 0:
        run.save("latest", *([f"iter_{step}"] if options.save_by_iter else []))
    elif is_old or stopping:
        run.save("latest")
    return stopping


def end_epoch(run: Run, stop: StopRequest) -> bool | None:
    """Validate, show and save what is due after an epoch.

    Returns:
        Whether --patience is spent; None where a stop came first, with all saved as it was after
        the epoch's last step.
    """
    options, position, epoch = run.options, run.position, run.position.epoch
    names = []
    is_scored = run.validates and epoch % options.val_freq == 0
    if is_scored:
        is_best = run.validate(stop)
        if is_best is None:
            run.save("latest")
            return None
        names += ["best"] * is_best
    run.model.end_epoch(position.mean_loss())
    run.monitor.write_page(epoch, position.step, run.model.pictures())
    position.next_epoch()
    if epoch % options.save_epoch_freq == 0 or epoch == run.last_epoch:
        names.append(f"epoch_{epoch}")
    run.save(*names, "latest")  # the latest one last: it says that the others are there
    waited = (epoch - position.best_epoch) // options.val_freq
    if not is_scored or not options.patience or waited < options.patience:
        return False
    run.processes.say(
        f"no better {options.val_metric} in {waited} validations since epoch "
        f"{position.best_epoch}: stopping; best.pt holds that epoch"
    )
    return True


def stop_early(run: Run) -> int:
    """Leave in order after a signal, all being saved; returns the exit code."""
    from training.saver import resume_command

    run.monitor.finish()
    run.saver.record("stopped")
    run.processes.wait()  # torchrun ends the others as soon as one has left
    leave_processes(run.processes)
    if verdict := run.verdict():
        print(verdict, file=sys.stderr)
    after = f"step {run.position.step} (epoch {run.position.epoch})"
    go_on = f"go on with: {resume_command(run.options)}"
    if run.loader.failure is not None:
        raise UserError(f"{run.loader.failure}; saved after {after}; {go_on}")
    if run.processes.is_first:
        print(f"stopped after {after}; {go_on}", file=sys.stderr)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    ALSO_LISTED.append(cache_in_words)
    run_program(main)
