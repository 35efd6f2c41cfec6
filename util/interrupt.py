"""Stop between two steps: Ctrl-C and a scheduler's SIGTERM become a flag that a loop looks at."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import TypeVar

Item = TypeVar("Item")


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `requested`; a second one acts as usual.

    Args:
        patient: later signals do nothing either. Of several processes each may get the same signal
            twice, from a scheduler and from torchrun, which must not end the saving that the first
            one began.

    An exception in the middle of a step would leave the generators updated and the discriminators
    not, so the loop finishes its step, saves, and leaves by itself. Works in the main thread only,
    as Python's signal handlers do.
    """

    def __init__(self, patient: bool = False) -> None:
        self._patient = patient
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def checked(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until a stop is requested; the loop's body is never broken off.

        Raises:
            KeyboardInterrupt: in place of the next item, once a signal has come.
        """
        for item in items:
            if self.requested is not None:
                raise KeyboardInterrupt
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number)
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}


def ignore_interrupts(worker: int) -> None:
    """Loader workers get Ctrl-C too; they leave stopping to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def terminate_like_interrupt() -> None:
    """Let a job scheduler's SIGTERM act as Ctrl-C does: leave in order, exit code 130."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
