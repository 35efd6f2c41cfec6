"""Stop between two steps: Ctrl-C, the signals of schedulers and an ssh that closes become a flag
that a loop looks at."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import TypeVar

Item = TypeVar("Item")


# A terminal that closes tells by SIGHUP. Schedulers warn by SIGUSR1 or SIGUSR2 (SLURM's --signal,
# Grid Engine's -notify, submitit, LSF), and by SIGXCPU where the processor's time is limited.
STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
TOGETHER = 1.0  # seconds within which signals are one request


class StopRequest:
    """While active, the first signal of `STOPPING` sets `requested`; a later Ctrl-C acts as usual.

    SIGHUP does not where nohup has it ignored. Other later signals do nothing, nor does a Ctrl-C
    that comes with the first one: `timeout`, schedulers and torchrun send to a process and to its
    group, so the same signal comes twice, which must not end the saving that the first one began.

    Args:
        patient: no later signal does anything, where several processes stop together.

    An exception in the middle of a step would leave the generators updated and the discriminators
    not, so the loop finishes its step, saves, and leaves by itself. Works in the main thread only,
    as Python's signal handlers do.
    """

    def __init__(self, patient: bool = False) -> None:
        self._patient = patient
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}
        self._terminals: list[int] = []
        self._since = 0.0

    def __enter__(self) -> StopRequest:
        for number in STOPPING:
            if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
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
        is_later = self.requested is not None
        if is_later and number == signal.SIGINT and time.monotonic() - self._since > TOGETHER:
            if not self._patient:
                self._restore()
                signal.raise_signal(number)
            return
        if not is_later:
            self._since = time.monotonic()
        self.requested = signal.Signals(number)
        if self.requested.name == "SIGHUP":  # a line to a terminal that is gone would be an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in self._terminals:
                os.dup2(nowhere, terminal)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}


def leave_signals_to_the_first() -> None:
    """Loader processes get the signals of their group, too; the first process ends them."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def terminate_like_interrupt() -> None:
    """Let all of `STOPPING` act as Ctrl-C does: leave in order, exit code 130.

    After the first only Ctrl-C does, for they come twice (`StopRequest`), SIGXCPU each second, and
    would break off the leaving.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        for later in set(STOPPING) - {signal.SIGINT}:
            signal.signal(later, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
