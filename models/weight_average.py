"""Exponential moving average of a network's weights: a steadier generator for testing."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn


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
        """Take up a state made by `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]
