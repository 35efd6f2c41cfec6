from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from util.interrupt import StopRequest, ignore_interrupts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers_as_found() -> Iterator[None]:
    """No test may leave a handler behind."""
    found = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, found, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_nothing_is_interrupted(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested is number


@pytest.mark.parametrize("number", SIGNALS)
def test_items_end_with_the_one_in_work_when_a_stop_is_requested(number: signal.Signals) -> None:
    with StopRequest() as stop:
        items = stop.checked(range(5))
        assert [next(items), next(items)] == [0, 1]
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            next(items)


def test_all_items_come_where_nobody_stops() -> None:
    with StopRequest() as stop:
        assert list(stop.checked(iter("abc"))) == ["a", "b", "c"]


def test_the_second_interrupt_acts_as_usual() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_patient_request_outlasts_further_signals() -> None:
    with StopRequest(patient=True) as stop:
        for number in (*SIGNALS, *SIGNALS):
            os.kill(os.getpid(), number)
        assert stop.requested is SIGNALS[-1]


def test_handlers_are_put_back() -> None:
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)  # its handler goes at the first signal already
        os.kill(os.getpid(), signal.SIGTERM)
    assert calls == [signal.SIGTERM]
    assert stop.requested is signal.SIGINT


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="within"), StopRequest():
        raise ValueError("within")
    assert signal.getsignal(signal.SIGINT) is before


def test_loader_workers_leave_ctrl_c_to_the_main_process() -> None:
    ignore_interrupts(0)
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_only_the_main_thread_can_watch() -> None:
    errors: list[str] = []

    def watch() -> None:
        try:
            with StopRequest():
                pass
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert len(errors) == 1
