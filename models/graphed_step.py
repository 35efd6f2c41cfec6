"""A training step on a GPU as two CUDA graphs: thousands of kernels started by two calls.

Started one by one, the kernels of a step keep the host busier than the GPU (docs/training.md). Both
halves of a step are therefore recorded once and replayed. What the host decides (which images the
pools hand back, the learning rate, the moving average) stays between them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

WARM_UP = 3  # steps before recording: kernels are compiled and chosen, memory is laid out


class Recordable(Protocol):
    """A model whose every step does the same on the device, without a say of the host's."""

    options: Namespace
    device: torch.device
    optimizers: dict[str, torch.optim.Adam]

    def train_generators(self) -> Tensor:
        """The first half of a step."""
        ...

    def train_discriminators(self, fakes: Mapping[str, Tensor]) -> Tensor:
        """The second half of a step."""
        ...

    def results(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the last step left, by name."""
        ...


class GraphedStep:
    """The two halves of a model's step, recorded for whole batches.

    Args:
        model: on a CUDA device.
    """

    def __init__(self, model: Recordable) -> None:
        self._batch_size: int = model.options.batch_size
        self._batch: tuple[Tensor, Tensor] | None = None
        self._fakes: dict[str, Tensor] = {}
        self.train_generators = _Half(model, "G", model.train_generators)
        self._discriminators = _Half(model, "D", lambda: model.train_discriminators(self._fakes))

    def place(self, real_A: Tensor, real_B: Tensor) -> tuple[Tensor, Tensor]:
        """The batch where a recorded step reads it; as it is where it is no whole one."""
        if len(real_A) != self._batch_size:
            return real_A, real_B
        if self._batch is None:
            self._batch = real_A, real_B
        else:
            for there, images in zip(self._batch, (real_A, real_B), strict=True):
                there.copy_(images)
        return self._batch

    def fits(self, real_A: Tensor) -> bool:
        """Whether a batch was placed; an epoch's last may be smaller."""
        return self._batch is not None and real_A is self._batch[0]

    def train_discriminators(self, fakes: Mapping[str, Tensor]) -> Tensor:
        """As the model's own."""
        for name, fake in fakes.items():
            if name not in self._fakes:
                self._fakes[name] = torch.empty_like(fake)
            self._fakes[name].copy_(fake)
        return self._discriminators()


class _Half:
    """Half a step: taken as it is `WARM_UP` times, then recorded, then replayed.

    Args:
        model: of the step.
        name: of its optimiser. That one reads its learning rate on the device, since a recorded
            step would keep a number for ever.
        work: takes the half step.
    """

    def __init__(self, model: Recordable, name: str, work: Callable[[], Tensor]) -> None:
        self._model, self._work = model, work
        self._optimizer: Optimizer = model.optimizers[name]
        self._rate = torch.zeros((), device=model.device)
        self._stream = torch.cuda.Stream(model.device)
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> Tensor:
        self._rate.fill_(self._optimizer.param_groups[0]["lr"])
        self._calls += 1
        if self._calls <= WARM_UP:
            # On the recording's stream, where the allocator lays memory out as it will be then.
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                result = self._with_rate_on_device()
            current.wait_stream(self._stream)
            return result
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads (the loader's, which pins memory) may use CUDA meanwhile.
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._result = self._with_rate_on_device()
            self._left = [dict(tensors) for tensors in self._model.results()]
        self._graph.replay()
        # Where the recording left them; a step of another size in between leaves others.
        for now, recorded in zip(self._model.results(), self._left, strict=True):
            now.update(recorded)
        return self._result

    def _with_rate_on_device(self) -> Tensor:
        groups = self._optimizer.param_groups
        kept = [(group["lr"], group["capturable"]) for group in groups]
        try:
            for group in groups:
                group["lr"] = self._rate
                group["capturable"] = torch.cuda.is_current_stream_capturing()
            return self._work()
        finally:
            for group, (rate, capturable) in zip(groups, kept, strict=True):
                group["lr"], group["capturable"] = rate, capturable
