from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import util.interrupt
from util.interrupt import (
    STOPPING,
    StopRequest,
    leave_signals_to_the_first,
    terminate_like_interrupt,
)

SIGNALS = STOPPING


@pytest.fixture(autouse=True)
def handlers_as_found() -> Iterator[None]:
    """No test may leave a handler behind."""
    found = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
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


def test_the_second_interrupt_acts_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util.interrupt, "TOGETHER", -1.0)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_twice_at_once_is_one(number: signal.Signals) -> None:
    """`timeout` sends it to the process and to its group."""
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.requested is number
        os.kill(os.getpid(), number)
        assert stop.requested is number


def test_only_ctrl_c_ends_the_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util.interrupt, "TOGETHER", -1.0)
    with StopRequest():
        for number in (*SIGNALS[1:], *SIGNALS[1:]):
            os.kill(os.getpid(), number)


def test_a_patient_request_outlasts_further_signals() -> None:
    with StopRequest(patient=True) as stop:
        for number in (*SIGNALS, *SIGNALS):
            os.kill(os.getpid(), number)
        assert stop.requested is SIGNALS[-1]


def test_the_signals_of_schedulers_and_terminals_stop() -> None:
    """SLURM warns by the one that --signal names, submitit by SIGUSR2, Grid Engine by both; a limit
    of the processor's time by SIGXCPU; an ssh that closes sends SIGHUP."""
    assert {number.name for number in STOPPING} == {
        "SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU",
    }  # fmt: skip


def test_nohup_keeps_its_word() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    terminate_like_interrupt()
    os.kill(os.getpid(), signal.SIGHUP)  # raises nothing


def test_a_terminal_that_is_gone_takes_no_more_lines() -> None:
    """A line to it is an error, in the middle of saving."""
    child, terminal = os.forkpty()
    if child == 0:  # in the new terminal; leaves by its code alone
        code = 1
        try:
            with StopRequest() as stop:
                os.write(1, b"ready")
                while stop.requested is None:
                    signal.pause()
                time.sleep(0.2)  # the other side is closed by now
                os.write(1, b"saved")
                os.write(2, b"saved")
            code = 0
        finally:
            os._exit(code)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)  # which sends SIGHUP
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_may_act_as_ctrl_c(number: signal.Signals) -> None:
    terminate_like_interrupt()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS[1:])
def test_signals_that_follow_do_not_break_off_the_leaving(number: signal.Signals) -> None:
    """SIGXCPU comes each second until the process is gone."""
    terminate_like_interrupt()
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        for later in SIGNALS[1:]:
            os.kill(os.getpid(), later)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    os.kill(os.getpid(), signal.SIGTERM)
    assert calls == [signal.SIGTERM]


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="within"), StopRequest():
        raise ValueError("within")
    assert signal.getsignal(signal.SIGINT) is before


def test_loader_processes_leave_signals_to_the_first_process() -> None:
    leave_signals_to_the_first()
    for number in SIGNALS:
        os.kill(os.getpid(), number)  # does nothing
        assert signal.getsignal(number) is signal.SIG_IGN


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
