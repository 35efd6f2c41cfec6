"""Several processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from util.devices import choose_devices
from util.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONGEST_WAIT = timedelta(hours=12)  # the first process may unpack volumes or validate meanwhile


@dataclass(frozen=True)
class Processes:
    """This process among its fellows; alone, every method does nothing."""

    rank: int = 0  # number of this process, from 0; process 0 writes all files
    count: int = 1  # how many there are
    launcher: int = 0  # process id of torchrun

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def is_orphaned(self) -> bool:
        """Whether torchrun is gone, as after a signal that it does not know."""
        return self.count > 1 and os.getppid() != self.launcher

    def say(self, line: str) -> None:
        """Print a line, in the first process."""
        if self.is_first:
            print(line)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device by their mean over all processes, in one message.

        Gradients go through here once they are complete, so it does not matter how many forward
        passes share a backward pass.
        """
        if self.count == 1 or not tensors:
            return
        import torch
        from torch import distributed

        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        pieces = flat.split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set in any process. By the CPU, so that no GPU waits."""
        if self.count == 1:
            return flags
        import torch
        from torch import distributed

        words = torch.tensor(flags, dtype=torch.float32)
        distributed.all_reduce(words)
        return tuple(bool(word) for word in words)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their ranks; in process 0 only, else empty.

        Args:
            value: anything that can be pickled, tensors on the CPU.
        """
        if self.count == 1:
            return [value]
        from torch import distributed

        gathered: list[Any] | None = [None] * self.count if self.is_first else None
        distributed.gather_object(value, gathered)
        return gathered or []

    def from_first(self, value: Any) -> Any:
        """What process 0 holds, in all processes."""
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.any(False)


ALONE = Processes()


def process_place() -> tuple[int, int]:
    """This process's (rank, number of processes) under torchrun; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join_processes(device: torch.device) -> Processes:
    """Meet the other processes of this torchrun call; without torchrun `ALONE`.

    Args:
        device: where this process computes. Gradients go by nccl between GPUs, else by gloo; words
            about stopping always go by gloo.
    """
    rank, count = process_place()
    if "RANK" not in os.environ or count == 1:
        return ALONE
    import torch
    from torch import distributed

    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    return Processes(rank, count, os.getppid())


def leave_processes(processes: Processes) -> None:
    """Close what `join_processes` opened."""
    if processes.count > 1:
        from torch import distributed

        distributed.destroy_process_group()


def processes_to_start(gpu_ids: str) -> int:
    """How many processes a call without torchrun has to start: one for each GPU of --gpu_ids."""
    if "RANK" in os.environ or gpu_ids == "-1":
        return 1
    return len(choose_devices(gpu_ids))


def own_device(devices: list[torch.device]) -> torch.device:
    """The device of this process: the first, or under torchrun one for each.

    Raises:
        UserError: there are more processes on this machine than GPUs.
    """
    if process_place()[1] == 1 or devices[0].type == "cpu":
        return devices[0]
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= len(devices):
        raise UserError(
            f"torchrun started process {local + 1} on this machine, which has {len(devices)} GPUs "
            f"for it: give --nproc_per_node {len(devices)}"
        )
    return devices[local]
