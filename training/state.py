"""Where a training run stands, and how it is saved and resumed exactly."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints.checkpoint import (
    load_checkpoint,
    load_original_weights,
    save_checkpoint,
)
from models.checkpoints.experiment_folder import LATEST, checkpoint_path, keep_previous, load_newest
from models.medical_cycle_gan import MedicalCycleGANModel
from options.train_checks import FOUND_BY_AUTO
from training.given_weights import start_from_weights
from util.errors import UserError
from util.seeds import random_states, restore_random_states

# A resumed run must agree on these, since they shape the weights or the scheduler's state.
FIXED_OPTIONS = (
    "model",
    "sampling_times",
    "clinical2micronetG",
    "micro2clinicalnetG",
    "ngf",
    "ndf",
    "netD",
    "n_layers_D",
    "norm",
    "skip",
    "texture_noise",
    "lr_policy",
)
YOUNG_OPTIONS = {"skip": "none", "texture_noise": 0}  # what runs of before they came had


@dataclass
class Position:
    """Where training stands between two steps."""

    epoch: int  # the running one, from 1
    offset: int = 0  # items of it that have been used
    step: int = 0  # optimisation steps since the start
    # sum of the generators' total loss over the epoch's steps, on the device
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_count: int = 0  # steps in it
    best: float | None = None  # the best validation score; None before the first
    best_epoch: int = 0  # the epoch it came from
    best_metric: str | None = None  # which score it is
    # `training.held_back.fingerprint` of what was scored; None where nothing was, or nobody says
    best_of: str | None = None
    epoch_items: int | None = None  # patches of the running epoch; None where nobody says

    def advance(self, items: int, generator_loss: Tensor) -> None:
        """Count one step on `items` patches; does not wait for the device."""
        self.step += 1
        self.offset += items
        loss = generator_loss.detach().double()
        # A step that was left out for its loss must not spoil the epoch's mean.
        loss = torch.where(loss.isfinite(), loss, torch.zeros_like(loss))
        self.loss_sum = self.loss_sum.to(loss.device) + loss
        self.loss_count += 1

    def mean_loss(self) -> float:
        """Mean of the generators' total loss over the epoch so far."""
        return float(self.loss_sum) / max(self.loss_count, 1)

    def score_anew(self) -> None:
        """Forget the best score, with which later ones cannot be compared."""
        self.best, self.best_epoch = None, self.epoch - 1

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch, self.offset, self.loss_count = self.epoch + 1, 0, 0
        self.loss_sum = torch.zeros_like(self.loss_sum)

    def state_dict(self) -> dict[str, Any]:
        """Numbers for a checkpoint."""
        return {
            "epoch": self.epoch,
            "offset": self.offset,
            "step": self.step,
            "loss_sum": float(self.loss_sum),
            "loss_count": self.loss_count,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_metric": self.best_metric,
            "best_of": self.best_of,
            "epoch_items": self.epoch_items,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """Inverse of `state_dict`."""
        loss_sum = torch.tensor(state["loss_sum"], dtype=torch.float64)
        return cls(**{**state, "loss_sum": loss_sum})


@dataclass(frozen=True)
class Start:
    """Where and with what a run begins."""

    position: Position  # the first step to take
    # intensity windows of the run so far; None at a fresh start
    windows: Mapping[str, Any] | None = None
    # those that --init_weights were made for, if they say so
    weights_windows: Mapping[str, Any] | None = None
    # slices that the run so far was trained on, which a resumed run with other data must not forget
    digests: frozenset[str] = frozenset()
    scans: Mapping[str, Any] | None = None  # that its weights know, if they say so
    # what `--scanner auto` has found, by option: a resumed run goes on with it
    scanner: Mapping[str, Any] | None = None


def save_training_state(
    paths: Sequence[Path],
    model: MedicalCycleGANModel,
    options: Namespace,
    position: Position,
    windows: Mapping[str, Any],
    digests: Sequence[str],
    scans: Mapping[str, Any],
    processes: Sequence[Mapping[str, Any]],
) -> None:
    """Write one checkpoint under each of `paths`; what was `latest.pt` becomes `previous.pt`.

    It holds the networks with their architecture, the optimisers, schedulers and pools, the
    sampler's position, every random state, the intensity windows and the training slices'
    digests, so that testing and exact resuming need nothing else.

    Args:
        scans: `known_scans` of the run.
        processes: `process_state` of each.
    """
    state = {
        "architecture": model.G_A.architecture,
        "windows": dict(windows),
        "training_digests": list(digests),
        "scans": dict(scans),
        "position": position.state_dict(),
        "processes": list(processes),
        "options": {name: plain_option(value) for name, value in vars(options).items()},
        **model.state_dict(),
    }
    for path in paths:
        if path.name == LATEST and path.exists():
            keep_previous(path)
        save_checkpoint(path, state)


def process_state(model: MedicalCycleGANModel) -> dict[str, Any]:
    """What each process has of its own: image pools and random states."""
    return {"pools": model.pools_state(), "random": random_states()}


def plain_option(value: Any) -> Any:
    """An option as a type that a checkpoint can hold."""
    if isinstance(value, list | tuple):
        return [plain_option(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def start_or_resume(
    folder: Path,
    options: Namespace,
    model: MedicalCycleGANModel,
    say: Callable[[str], None] = print,
) -> Start:
    """Where to start: at the beginning, or with --continue_train where a checkpoint stands.

    A `latest.pt` that was cut off is passed over for the one before it. A process that the saved
    run did not have starts with empty pools and its own seed.

    Weights that the original code saved (latest_net_G_A.pth and its three companions) are taken
    up as well; they bring no optimiser state, so training starts at --epoch_count.

    Raises:
        UserError: a model is in the way of a fresh start, or nothing is there to go on from, or
            it is of another architecture.
    """
    path = checkpoint_path(folder, options.epoch, options.load_iter)
    if not options.continue_train:
        if any(folder.glob("*.pt")) and not options.overwrite:
            raise UserError(
                f"{folder} already holds a model: --continue_train goes on with it, --overwrite "
                "replaces it, --name NAME starts another"
            )
        position = Position(options.epoch_count)
        if not options.init_weights:
            return Start(position)
        loaded = start_from_weights(options.init_weights, model, say)
        return Start(
            position,
            weights_windows=loaded.windows,
            digests=loaded.training_digests,
            scans=loaded.scans,
        )
    if not path.is_file():
        original = load_original_weights(folder, options.epoch)
        if original is not None:
            try:
                model.load_networks(original)
            except RuntimeError as error:
                raise UserError(
                    f"the *_net_*.pth weights in {folder} do not fit these networks "
                    f"({_second_line(error)}): give the --ngf, --ndf and --model they were "
                    "trained with"
                ) from error
            return Start(Position(options.epoch_count))
    state = load_newest(folder, say) if path.name == LATEST else load_checkpoint(path)
    for name in FIXED_OPTIONS:
        now = getattr(options, name)
        was = state["options"].get(name, YOUNG_OPTIONS.get(name))
        if was != now:
            raise UserError(
                f"{path} was trained with --{name} {was}, got {now}: leave --{name} out to go on, "
                "or start another experiment with --name"
            )
    model.load_state_dict(state)
    model.resume_learning_rate(before=state["options"]["lr"])
    position = Position.from_state(state["position"])
    model.steps = position.step
    rank = model.processes.rank
    if rank < len(state["processes"]):
        if not model.load_pools(state["processes"][rank]["pools"]):
            say("patches have another size now: the discriminators forget the images they remember")
        restore_random_states(state["processes"][rank]["random"])
    return Start(
        position,
        state["windows"],
        digests=frozenset(state["training_digests"]),
        scans=state.get("scans"),
        scanner=_found_scanner(state["options"], options),
    )


def _found_scanner(stored: Mapping[str, Any], now: Namespace) -> dict[str, Any] | None:
    if (stored.get("scanner"), now.scanner) != ("auto", "auto"):
        return None
    return {name: stored[name] for name in FOUND_BY_AUTO}


def _second_line(error: RuntimeError) -> str:
    """torch names the first wrong key in the second line of its message."""
    return [*str(error).splitlines(), ""][1].strip() or str(error)
