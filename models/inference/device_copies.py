"""Copies between host and device that the device's computing does not wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


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
