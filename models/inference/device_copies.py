"""Copies between host and device that the device's computing does not wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.inference.turn import Turn


class DeviceCopies:
    """Uploads and downloads of slices; on CUDA through pinned memory and a stream of their own.

    Args:
        device: where the slices are computed.
    """

    Pending = Callable[[], np.ndarray]

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last_use: torch.cuda.Event | None = None

    def __reduce__(self) -> tuple[type[DeviceCopies], tuple[torch.device]]:
        return DeviceCopies, (self.device,)  # another process has streams of its own

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Streams of several threads use the same maps, so each waits for the one before."""
        if self._stream is None:
            yield
            return
        stream = torch.cuda.current_stream(self.device)
        if self._last_use is not None:
            stream.wait_event(self._last_use)
        try:
            yield
        finally:
            self._last_use = stream.record_event()

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


class ExactConvolutions:
    """Within it fp32 means fp32: cuDNN would otherwise round inputs to 10 bits (TF32).

    The flags are those of the whole process: the first thread sets them, the last puts them back.
    """

    def __init__(self) -> None:
        self._turn = Turn()
        self._inside = 0
        self._flags = ExitStack()

    def __enter__(self) -> None:
        with self._turn:
            if self._inside == 0:
                # `enabled` has to be given: by default the flags turn cuDNN off.
                settings: dict[str, Any] = {"enabled": True, "allow_tf32": False}
                if hasattr(torch.backends, "fp32_precision"):  # since torch 2.9; it comes before
                    settings["fp32_precision"] = "ieee"  # allow_tf32 where a program has set it
                self._flags.enter_context(torch.backends.cudnn.flags(**settings))
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._turn:
            self._inside -= 1
            if self._inside == 0:
                self._flags.close()


exact_convolutions = ExactConvolutions()
