"""What a run leaves on the disk: checkpoints and run.json, by the first process alone."""

from __future__ import annotations

import os
import shlex
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.training_data import TrainingData
from models.checkpoints.checkpoint import load_checkpoint
from models.checkpoints.experiment_folder import (
    BEST,
    LATEST,
    prune_checkpoints,
    remember_experiment,
    superseded_checkpoints,
)
from models.medical_cycle_gan import MedicalCycleGANModel
from models.networks import all_finite, count_parameters
from options import TrainOptions
from options.base_options import format_options
from training.aside import forget_aside, put_aside
from training.state import Position, process_state, save_training_state
from util.disk.cache_folder import renew_use
from util.disk.disk_space import refuse_small_disk
from util.errors import UserError
from util.files import write_json, write_text
from util.privacy import cleared
from util.processes import process_place
from util.run_record import write_run_record

FLOAT_BYTES = 4
MOMENTS_AND_WEIGHTS = 3  # a checkpoint holds Adam's two moments of each weight


class RunSaver:
    """Saves a run in its folder; every method is called by all processes.

    Args:
        folder: of the experiment.
        options: of the run; written to options.txt and options.json with the first checkpoint.
        model: what is trained.
        position: where the run stands; the loop moves it on.
        data: for its windows and sources.
        digests: of all slices trained on.
        scans: that the weights know, see `training.known_scans`.
    """

    def __init__(
        self,
        folder: Path,
        options: Namespace,
        model: MedicalCycleGANModel,
        position: Position,
        data: TrainingData,
        digests: Sequence[str],
        scans: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.options = options
        self.model = model
        self.position = position
        self.data = data
        self.digests = digests
        self.scans = scans
        self.saved_at = time.monotonic()
        fresh = not options.continue_train
        goes_back = not fresh and (options.epoch != "latest" or options.load_iter != 0)
        self.superseded = superseded_checkpoints(
            folder, position.epoch, position.step, fresh, goes_back
        )
        if goes_back and is_beyond(folder / BEST, position.step):
            # Of the branch that is left: the next validation finds the best anew.
            self.superseded.append(folder / BEST)
            position.best = None
        self._has_options = False
        if model.processes.is_first:
            weights = sum(count_parameters(network) for network in model.networks.values())
            needed = FLOAT_BYTES * weights * MOMENTS_AND_WEIGHTS
            remedy = "give another --checkpoints_dir, or a smaller --ngf"
            refuse_small_disk(folder, needed, "one checkpoint", remedy)
            if fresh or goes_back:
                put_aside(folder)

    def save(self, *names: str) -> None:
        """Write checkpoints under `names`.

        Raises:
            UserError: a weight is not finite, or the disk refused.
        """
        for name, network in self.model.networks.items():
            if not all_finite(network):
                raise UserError(
                    f"weights of {name} are not finite after step {self.position.step}: go on "
                    "with a lower learning rate, or without mixed precision; "
                    f"{self.last_good()}"
                )
        processes = self.model.processes.gather(process_state(self.model))
        self.saved_at = time.monotonic()
        if not self.model.processes.is_first:
            return
        self._write_options()
        paths = [self.folder / f"{name}.pt" for name in names]
        windows = self.data.windows.as_dict()
        save_training_state(
            paths,
            self.model,
            self.options,
            self.position,
            windows,
            self.digests,
            self.scans,
            processes,
        )
        renew_use()
        # Only now, so that a run which fails before its first save loses nothing.
        while self.superseded:
            path = self.superseded.pop()
            if path not in paths:
                path.unlink(missing_ok=True)
        forget_aside(self.folder)
        prune_checkpoints(self.folder, self.options.keep)
        remember_experiment(Path(self.options.checkpoints_dir), self.options.name)

    def last_good(self) -> str:
        """Names the checkpoint that a run which diverged can go on from."""
        latest = self.folder / LATEST
        if not latest.is_file():
            return "no checkpoint before it"
        if not (self._has_options or self.options.continue_train):
            return f"nothing of it was saved, and {latest} is as it was"
        return f"last good checkpoint: {latest}"

    def _write_options(self) -> None:
        """Once a step is done with them: a run that fails at once goes on with those of before."""
        if not self._has_options:
            text = format_options(TrainOptions().build(), self.options)
            write_text(self.folder / "options.txt", cleared(text) + "\n")
            write_json(self.folder / "options.json", vars(self.options))
            self._has_options = True

    def is_old(self) -> bool:
        """Whether --save_every_minutes have gone by since the last checkpoint."""
        minutes = self.options.save_every_minutes
        return minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes

    def record(self, status: str) -> None:
        """Write run.json."""
        if not self.model.processes.is_first:
            return
        write_run_record(
            self.folder / "run.json",
            vars(self.options),
            str(self.model.device),
            status=status,
            seed=self.options.seed,
            steps=self.position.step,
            processes=self.model.processes.count,
            data=self.data.sources,
            lung_masks=list(self.data.masks),
            windows=self.data.windows.as_dict(),
            scans=self.scans,
            outputs=[str(self.folder / LATEST)],
        )


def is_beyond(path: Path, step: int) -> bool:
    """Whether a checkpoint is there and was saved after a step."""
    return path.is_file() and bool(load_checkpoint(path)["position"]["step"] > step)


def resume_command(options: Namespace) -> str:
    """The command line that goes on with this run."""
    launcher = ["bash", "run.sh"]
    count = process_place()[1]
    if count > 1 and "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's, not training/launch.py's
        here = os.environ.get(
            "LOCAL_WORLD_SIZE", str(count)
        )  # of this machine, where there are more
        launcher = ["torchrun", "--nproc_per_node", here, "train.py"]
    words = [*launcher, "--continue_train", "--name", options.name]
    default = TrainOptions().build().get_default
    # What a checkpoint does not bring with it.
    for name in ("checkpoints_dir", "gpu_ids"):
        if getattr(options, name) != default(name):
            words += [f"--{name}", getattr(options, name)]
    return shlex.join(words)
