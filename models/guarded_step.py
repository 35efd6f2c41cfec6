"""One optimiser step on complete gradients: averaged over processes, clipped, kept finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from util.processes import Processes


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
