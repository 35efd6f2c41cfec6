"""From gradients to weights: learning-rate policies, the guarded step, the moving average."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer, lr_scheduler

from util.processes import Processes

Scheduler = lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau


def make_scheduler(
    optimizer: Optimizer, policy: str, niter: int, niter_decay: int, first_epoch: int, every: int
) -> Scheduler:
    """Return the scheduler called `policy`.

    Args:
        optimizer: whose learning rate is changed.
        policy: linear (constant for `niter` epochs, then linearly towards 0 over `niter_decay`),
            step (a tenth every `every` epochs), plateau (a fifth when the generators' loss has not
            improved for 5 epochs), cosine (half a cosine over all epochs) or constant (what the
            published code does in effect, since its scheduler is reset at every step).
        niter: epochs at the start value (100 in the paper).
        niter_decay: epochs of decay after them (100 in the paper).
        first_epoch: the epoch, counted from 1, at which this training starts.
        every: period of the step policy, in epochs.
    """
    passed = first_epoch - 1
    if policy == "linear":
        # Epoch e, counted from 0, runs at 1 up to niter and would reach 0 just after the last.
        return lr_scheduler.LambdaLR(
            optimizer, lambda e: 1.0 - max(0, e + passed + 1 - niter) / (niter_decay + 1)
        )
    if policy == "step":
        return lr_scheduler.LambdaLR(optimizer, lambda e: 0.1 ** ((e + passed) // every))
    if policy == "cosine":
        # In closed form like the others, so that a resumed run may be given another length.
        length = niter + niter_decay
        return lr_scheduler.LambdaLR(
            optimizer, lambda e: 0.5 * (1.0 + math.cos(math.pi * (e + passed) / length))
        )
    if policy == "constant":
        return lr_scheduler.LambdaLR(optimizer, lambda e: 1.0)
    if policy == "plateau":
        return lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="min", factor=0.2, threshold=0.01, patience=5
        )
    raise ValueError(f"lr_policy is {policy!r}, expected linear, step, plateau, cosine or constant")


def step_scheduler(scheduler: Scheduler, generator_loss: float) -> None:
    """End an epoch; only the plateau policy looks at the epoch's mean generator loss."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(generator_loss)
    else:
        with warnings.catch_warnings():
            # A run resumed at the very end of an epoch has taken no step yet; torch warns of it.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            scheduler.step()


def resume_rate(optimizer: Optimizer, scheduler: Scheduler, before: float, now: float) -> None:
    """Set the learning rate of a resumed run from its start value and place in the schedule.

    Computed anew, not taken from the checkpoint, so that another start value or another number of
    epochs acts at once: a finished linear run stands at rate 0, where an added epoch would learn
    nothing. With unchanged options the rate is bitwise the one that was saved.

    Args:
        optimizer, scheduler: with their saved states loaded.
        before: start value of the run so far.
        now: start value to go on with.
    """
    if isinstance(scheduler, lr_scheduler.LambdaLR):
        scheduler.base_lrs = [now] * len(optimizer.param_groups)
        rates = [now * factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    else:
        # The plateau policy has no formula: keep what it has come to, relative to the start.
        rates = [g["lr"] * now / before if before > 0 else now for g in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "initial_lr" in group:
            group["initial_lr"] = now


def guarded_step(
    optimizer: torch.optim.Adam,
    processes: Processes,
    largest_norm: float | None,
    also_average: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Step, unless a gradient is infinite or NaN: then weights and moments stay as they are.

    Nothing here waits for the device: whether to step is decided there (by fused Adam).

    Args:
        optimizer: fused, its gradients complete.
        processes: gradients are their mean over these.
        largest_norm: gradients of a larger norm are shrunk to it; None leaves them.
        also_average: further tensors to average with the same message.

    Returns:
        The gradients' norm before clipping, and 1 where the step was left out, else 0.
    """
    parameters = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    gradients = [parameter.grad for parameter in parameters]
    processes.average([*gradients, *also_average])
    norm = get_total_norm(gradients)
    skipped = (~norm.isfinite()).float()
    if largest_norm is not None:
        clip_grads_with_norm_(parameters, largest_norm, norm)
    optimizer.found_inf = skipped  # type: ignore[attr-defined]  # as torch.amp's scaler sets it
    optimizer.step()
    return norm, skipped


class WeightAverage:
    """Follows a network: average = d * average + (1 - d) * weights after each step.

    In the first steps d is (1 + steps) / (10 + steps) where that is smaller, so that the random
    start is soon forgotten.

    Args:
        network: what to follow; its buffers are copied as they are.
        decay: d, in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.steps = 0

    def update(self, network: nn.Module) -> None:
        """Take in the weights after one more step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.network.parameters()), list(network.parameters()), 1 - decay
            )
            for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and how many steps are in them."""
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state made by `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]
