"""One thread after the other, where they share scratch memory; in a forked process anew."""

from __future__ import annotations

import os
import threading
from types import TracebackType

import torch


class Turn:
    """A lock for `with`, which fork and pickle leave open: a forked process may get it while a
    thread holds it that is not there."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._lock, self._process = threading.RLock(), os.getpid()
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()


def compute_with_one_thread() -> None:
    """In a forked process torch's own threads are gone, and its first parallel loop would wait for
    them for ever. Loader workers of torch do the same."""
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=compute_with_one_thread)
