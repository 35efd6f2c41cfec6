"""Where a training run stands, and how it is saved and taken up again exactly."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import (
    checkpoint_path,
    load_checkpoint,
    load_original_weights,
    save_checkpoint,
)
from models.medical_cycle_gan import MedicalCycleGANModel
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
    "lr_policy",
)


@dataclass
class Position:
    """Where training stands between two steps.

    Attributes:
        epoch: the running one, from 1.
        offset: items of it that have been used.
        step: optimisation steps since the start.
        loss_sum: sum of the generators' total loss over the epoch's steps, on the device.
        loss_count: steps in it.
    """

    epoch: int
    offset: int = 0
    step: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_count: int = 0

    def advance(self, items: int, generator_loss: Tensor) -> None:
        """Count one step on `items` patches; does not wait for the device."""
        self.step += 1
        self.offset += items
        self.loss_sum = self.loss_sum.to(generator_loss.device) + generator_loss.detach().double()
        self.loss_count += 1

    def mean_loss(self) -> float:
        """Mean of the generators' total loss over the epoch so far."""
        return float(self.loss_sum) / max(self.loss_count, 1)

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
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """Inverse of `state_dict`."""
        loss_sum = torch.tensor(state["loss_sum"], dtype=torch.float64)
        return cls(state["epoch"], state["offset"], state["step"], loss_sum, state["loss_count"])


@dataclass(frozen=True)
class Start:
    """Where and with what a run begins.

    Attributes:
        position: the first step to take.
        windows: intensity windows of the run so far; None at a fresh start.
        digests: slices that the run so far was trained on, which a resumed run with other data
            must not forget.
    """

    position: Position
    windows: Mapping[str, Any] | None = None
    digests: frozenset[str] = frozenset()


def save_training_state(
    paths: Sequence[Path],
    model: MedicalCycleGANModel,
    options: Namespace,
    position: Position,
    windows: Mapping[str, Any],
    digests: Sequence[str],
) -> None:
    """Write one checkpoint under each of `paths`.

    It holds the networks with their architecture, the optimisers, schedulers and pools, the
    sampler's position, every random state, the intensity windows and the training slices'
    digests, so that testing and exact resuming need nothing else.
    """
    state = {
        "architecture": model.G_A.architecture,
        "windows": dict(windows),
        "training_digests": list(digests),
        "position": position.state_dict(),
        "random": random_states(),
        "options": {name: plain_option(value) for name, value in vars(options).items()},
        **model.state_dict(),
    }
    for path in paths:
        save_checkpoint(path, state)


def plain_option(value: Any) -> Any:
    """An option as a type that a checkpoint can hold."""
    if isinstance(value, list | tuple):
        return [plain_option(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def start_or_resume(folder: Path, options: Namespace, model: MedicalCycleGANModel) -> Start:
    """Where to start: at the beginning, or with --continue_train where a checkpoint stands.

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
        return Start(Position(options.epoch_count))
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
    state = load_checkpoint(path)
    for name in FIXED_OPTIONS:
        was, now = state["options"].get(name), getattr(options, name)
        if was != now:
            raise UserError(
                f"{path} was trained with --{name} {was}, got {now}: leave --{name} out to go on, "
                "or start another experiment with --name"
            )
    model.load_state_dict(state)
    model.take_up_learning_rate(before=state["options"]["lr"])
    restore_random_states(state["random"])
    return Start(
        Position.from_state(state["position"]),
        state["windows"],
        frozenset(state["training_digests"]),
    )


def _second_line(error: RuntimeError) -> str:
    """torch names the first wrong key in the second line of its message."""
    return [*str(error).splitlines(), ""][1].strip() or str(error)
