"""One thread after the other, where they share scratch memory; in a forked process anew."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from weakref import WeakSet

import torch


class Turn:
    """A lock for `with`, which fork and pickle leave open: a forked process may get it while a
    thread holds it that is not there."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        turns.add(self)

    def __enter__(self) -> None:
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

    def renew(self) -> None:
        """Open it, whoever held it."""
        self._lock = threading.RLock()


turns: WeakSet[Turn] = WeakSet()


def begin_forked() -> None:
    """In a forked process torch's own threads are gone, and its first parallel loop would wait for
    them for ever: compute with one, as loader workers of torch do. Nobody holds a turn there."""
    torch.set_num_threads(1)
    for turn in turns:
        turn.renew()


os.register_at_fork(after_in_child=begin_forked)
