"""Which devices to compute on, from --gpu_ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from util.errors import UserError

if TYPE_CHECKING:
    import torch


def count_gpus() -> int:
    """Number of usable CUDA devices. Imports torch, so call it only when the answer is needed."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_devices(gpu_ids: str) -> list[torch.device]:
    """Devices for --gpu_ids: `all` (every GPU, else the CPU), `-1` (the CPU), or numbers.

    Raises:
        UserError: a GPU is named that is not there.
    """
    import torch

    count = count_gpus() if gpu_ids != "-1" else 0
    if gpu_ids == "-1" or (gpu_ids == "all" and count == 0):
        return [torch.device("cpu")]
    indices = range(count) if gpu_ids == "all" else [int(word) for word in gpu_ids.split(",")]
    for index in indices:
        if index >= count:
            raise UserError(
                f"--gpu_ids names GPU {index}, found {count}: give numbers below {count}, or -1 "
                "for the CPU"
            )
    return [torch.device("cuda", index) for index in indices]


def device_name(device: torch.device) -> str:
    """What rounds alike: the GPU's name, or the vector instructions that torch uses on the CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
