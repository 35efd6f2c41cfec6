from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from util.pipeline import ahead


def counting(made: list[int], stop: int = 100) -> Iterator[int]:
    for number in range(stop):
        made.append(number)
        yield number


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_items_come_in_their_order() -> None:
    assert list(ahead(range(50))) == list(range(50))
    assert list(ahead([])) == []
    assert workers() == []


def test_stages_can_be_chained_and_run_on_threads_of_their_own() -> None:
    threads = set()

    def doubled(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            threads.add(threading.get_ident())
            yield 2 * item

    assert list(ahead(doubled(ahead(range(20))))) == list(range(0, 40, 2))
    assert threads
    assert threading.get_ident() not in threads
    assert workers() == []


@pytest.mark.parametrize("depth", [1, 3])
def test_the_thread_runs_ahead_by_its_depth_and_no_further(depth: int) -> None:
    made: list[int] = []
    with closing(ahead(counting(made), depth)) as items:
        for number in range(5):
            assert next(items) == number
            # What waits, and the one item that the thread holds while the queue is full.
            assert len(made) <= number + 1 + depth + 1
    assert workers() == []


def test_an_exception_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    found: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(ahead(failing()))
    assert found == [1, 2]
    assert workers() == []


def test_closing_stops_every_stage() -> None:
    made: list[int] = []
    with closing(ahead(ahead(counting(made, 10**9)))) as items:
        next(items)
    assert workers() == []
    assert len(made) < 20
