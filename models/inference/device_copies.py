"""Copies between host and device that the device's computing does not wait for."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from util.errors import UserError
from util.files import write_text

TRIAL_EDGE = 256  # of the square map that memory formats are tried on
TRIAL_RUNS = 5
FORMATS = (torch.channels_last, torch.contiguous_format)


class DeviceCopies:
    """Uploads and downloads of slices; on CUDA through pinned memory and a stream of their own.

    Args:
        device: where the slices are computed.
    """

    Pending = Callable[[], np.ndarray]

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def upload(self, values: Tensor) -> Tensor:
        """A host tensor on the device; the host does not wait for the copy."""
        if self._stream is None:
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)

    def start(self, values: Tensor) -> Pending:
        """Begin to copy a tensor to the host; calling the result waits for it."""
        if self._stream is None:
            array: np.ndarray = values.cpu().numpy()
            return lambda: array
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        with torch.cuda.stream(self._stream):
            host.copy_(values, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        # The allocator must not hand the memory on before the copy has read it.
        values.record_stream(self._stream)

        def wait() -> np.ndarray:
            done.synchronize()
            copied: np.ndarray = host.numpy()
            return copied

        return wait


def exact_convolutions() -> AbstractContextManager[None]:
    """Within it fp32 means fp32: cuDNN would otherwise round inputs to 10 bits (TF32)."""
    # `enabled` has to be given: by default the flags turn cuDNN off.
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    )
    return context


def best_memory_format(
    device: torch.device, dtype: torch.dtype, cache_dir: Path | None = None
) -> torch.memory_format:
    """Memory format in which a 3x3 convolution of 64 channels is faster on this device.

    On a CPU it is channels last (docs/inference.md); on a GPU it depends on the card and the type,
    so both are timed, which takes milliseconds. The choice is kept in the cache folder: where both
    are about as fast, another run would choose the other one and round differently.
    """
    if device.type != "cuda":
        return torch.channels_last
    kept = None
    if cache_dir is not None:
        card = re.sub(r"\W+", "_", torch.cuda.get_device_name(device))
        kept = cache_dir / f"memory_format-{card}-{dtype}-{torch.__version__}.txt"
    return remembered(kept, partial(_faster_format, device, dtype))


def remembered(kept: Path | None, choose: Callable[[], torch.memory_format]) -> torch.memory_format:
    """The choice that a file keeps; chosen, and kept where it can be, if there is none.

    Args:
        kept: text file; None for no file.
        choose: makes the choice.
    """
    known = _kept_format(kept)
    if known is not None:
        return known
    chosen = choose()
    if kept is None:
        return chosen
    with suppress(UserError):  # a folder that cannot be written costs a trial each time
        write_text(kept, f"{chosen}\n")
    return _kept_format(kept) or chosen  # of processes that start together the last one's


def _kept_format(kept: Path | None) -> torch.memory_format | None:
    try:
        known = "" if kept is None else kept.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return next((found for found in FORMATS if str(found) == known), None)


def _faster_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    def seconds(memory_format: torch.memory_format) -> float:
        with torch.inference_mode(), exact_convolutions():
            values = torch.zeros(1, 64, TRIAL_EDGE, TRIAL_EDGE, device=device, dtype=dtype)
            weight = torch.zeros(64, 64, 3, 3, device=device, dtype=dtype)
            values = values.contiguous(memory_format=memory_format)
            weight = weight.contiguous(memory_format=memory_format)
            for _ in range(2):  # the first calls choose an algorithm
                F.conv2d(values, weight)
            torch.cuda.synchronize(device)
            started = time.perf_counter()
            for _ in range(TRIAL_RUNS):
                F.conv2d(values, weight)
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return min(FORMATS, key=seconds)
