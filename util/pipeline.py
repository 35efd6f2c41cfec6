"""Stages of work that overlap: each runs ahead of the next on a thread of its own, but not far."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """Behind the last item; carries the exception that ended the work early, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[Item], depth: int = 1) -> Generator[Item, None, None]:
    """Yield the items of an iterable that a thread of its own works through meanwhile.

    Chained, `ahead(compute(ahead(read())))` reads, computes and consumes at the same time.

    Args:
        items: its exceptions are raised here, after the items before them.
        depth: items that may wait; the thread then stops until one is taken.

    Yields:
        The same items in the same order. Closing the generator stops the thread after its item;
        `contextlib.closing` does so whatever happens to the consumer.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        end = _End(None)
        iterator = iter(items)
        try:
            for item in iterator:
                waiting.put(item)
                if stopped.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            end = _End(error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()  # an inner `ahead` stops with this one
        waiting.put(end)
        del end  # with its traceback it would hold this frame, and all that the frame holds

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        error = item.error
        del item
        if error is not None:
            try:
                raise error
            finally:
                del error
    finally:
        stopped.set()
        while thread.is_alive():
            try:
                waiting.get(timeout=0.05)
            except queue.Empty:
                continue
        thread.join()
