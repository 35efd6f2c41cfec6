"""One thread after the other, where they share scratch memory; in a forked process anew."""

from __future__ import annotations

import os
import threading
import time
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
        if not mine.held:
            with gate:  # nobody begins while a fork waits
                pass
        self._lock.acquire()
        mine.held += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mine.held -= 1
        self._lock.release()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()

    def take(self) -> bool:
        """Hold it, where nobody else does; whether that is so."""
        return self._lock.acquire(blocking=False)

    def give(self) -> None:
        """Open it after `take`."""
        self._lock.release()

    def renew(self) -> None:
        """Open it, whoever held it."""
        self._lock = threading.RLock()


class Mine(threading.local):
    """How many turns this thread holds."""

    held = 0


turns: WeakSet[Turn] = WeakSet()
mine = Mine()
gate = threading.Lock()
held_for_fork: list[Turn] = []
LONGEST_TURN = 60.0  # seconds; then the fork comes all the same
BETWEEN_LOOKS = 0.002  # seconds


def finish_turns() -> None:
    """Before a fork: what another thread computes comes to its end. In the middle of it, OpenVINO
    would wait in the new process for a thread that is not there."""
    gate.acquire()
    end = time.monotonic() + LONGEST_TURN
    # All or none: who holds one may be about to take another.
    while not all(take_for_fork(turn) for turn in tuple(turns)) and time.monotonic() < end:
        give_back()
        time.sleep(BETWEEN_LOOKS)


def take_for_fork(turn: Turn) -> bool:
    """Hold one of them; whether that went."""
    is_mine = turn.take()
    if is_mine:
        held_for_fork.append(turn)
    return is_mine


def give_back() -> None:
    """Open all that are held for a fork."""
    while held_for_fork:
        held_for_fork.pop().give()


def begin_turns() -> None:
    """After a fork, in the process that did it."""
    give_back()
    gate.release()


def begin_forked() -> None:
    """In a forked process torch's own threads are gone, and its first parallel loop would wait for
    them for ever: compute with one, as loader workers of torch do. Nobody holds a turn there."""
    torch.set_num_threads(1)
    held_for_fork.clear()
    for turn in turns:
        turn.renew()
    gate.release()


os.register_at_fork(before=finish_turns, after_in_parent=begin_turns, after_in_child=begin_forked)
