"""Pieces packed by a few threads at once and written in their order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from data.writing.packing import Piece


class SliceStream:
    """Packs raw pieces on `threads` threads and writes them on one more, first in, first out.

    Once a piece could not be packed or written, no later one is: the file has no gaps.

    Args:
        pack: called on any thread, for several pieces at once.
        write: called on one thread, for one piece after the other.
        threads: how many pieces are packed at the same time.

    Raises:
        ValueError: fewer than one thread.
    """

    def __init__(
        self, pack: Callable[[memoryview], Piece], write: Callable[[Piece], None], threads: int
    ) -> None:
        if threads < 1:
            raise ValueError(f"{threads} threads: expected at least one")
        self._pack = pack
        self._write = write
        # One piece for each packing thread and one in the writer's hands keep all of them busy.
        self._capacity = threads + 1
        self._waiting: deque[Future[None]] = deque()
        self._error: BaseException | None = None
        self._packers = ThreadPoolExecutor(threads, thread_name_prefix="pack")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def put(self, raw: memoryview) -> None:
        """Hand over the next piece; blocks while more than `threads` + 1 are not yet written.

        Args:
            raw: must not change afterwards.

        Raises:
            Exception: what `pack` or `write` raised for this piece or one before it.
        """
        packed = self._packers.submit(self._pack, raw)
        self._waiting.append(self._writer.submit(self._write_next, packed))
        while self._waiting and (len(self._waiting) > self._capacity or self._waiting[0].done()):
            self._waiting.popleft().result()

    def drain(self) -> None:
        """Wait until all pieces are written; raises like `put`."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Stop the threads once the pieces put so far are written or refused; raises nothing."""
        self._waiting.clear()
        self._packers.shutdown()
        self._writer.shutdown()

    def _write_next(self, packed: Future[Piece]) -> None:
        if self._error is not None:
            raise self._error
        try:
            self._write(packed.result())
        except BaseException as error:
            self._error = error
            raise
