"""Batches by loader processes: the same as without, whatever becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import training.patch_loader
from data.patches import Item
from data.sampling import EpochSampler
from training.patch_loader import PatchLoader
from util.errors import UserError
from util.interrupt import STOPPING

LENGTH = 12
EDGE = 300  # 720 kB a batch


class Numbers:
    """Items that are their key; `slow` takes that many seconds in a loader process. A batch is
    larger than what a pipe holds unread."""

    def __init__(self, slow: float = 0.0) -> None:
        self.slow = slow

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, key: int) -> Item:
        if multiprocessing.parent_process() is not None:
            time.sleep(self.slow)
        return {
            "micro": torch.full((1, EDGE, EDGE), float(key)),
            "shrunk": torch.tensor(key % 2 == 0),
        }


def loader(
    workers: int, slow: float = 0.0, processes: int = 1, epoch: int = 0, offset: int = 0
) -> PatchLoader:
    data: Any = Numbers(slow)
    sampler = EpochSampler(LENGTH, 0, rank=0, processes=processes)
    sampler.set_position(epoch, offset)
    return PatchLoader(data, sampler, 2, workers, False)


@pytest.fixture
def made() -> Iterator[Callable[..., PatchLoader]]:
    loaders = []
    handler = signal.getsignal(signal.SIGCHLD)

    def make(*words: Any) -> PatchLoader:
        loaders.append(loader(*words))
        return loaders[-1]

    yield make
    for one in loaders:
        one.close()
    signal.signal(signal.SIGCHLD, handler)


def never() -> bool:
    return False


def keys(batches: Iterator[Item]) -> list[list[float]]:
    return [batch["micro"][:, 0, 0, 0].tolist() for batch in batches]


@pytest.mark.parametrize("offset", [0, 4, 9, LENGTH])
def test_loader_processes_change_nothing(made: Callable[..., PatchLoader], offset: int) -> None:
    alone, helped = made(0, 0.0, 1, 2, offset), made(2, 0.0, 1, 2, offset)
    counts = [-(-(LENGTH - offset) // 2), 6, 6]
    for epoch, count in enumerate(counts, 2):
        expected = keys(alone.batches(count, never))
        assert keys(helped.batches(count, never)) == expected
        assert len(expected) == count
        assert {key // LENGTH for batch in expected for key in batch} <= {epoch}
    (first, *_) = helped.batches(3, never)
    assert (first["micro"].dtype, first["shrunk"].dtype) == (torch.float32, torch.bool)


def test_a_process_that_dies_between_two_epochs_is_seen(made: Callable[..., PatchLoader]) -> None:
    alone, one = made(0), made(1)
    first = keys(one.batches(6, never))
    assert first == keys(alone.batches(6, never))
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    rest = keys(one.batches(6, never))
    assert rest == keys(alone.batches(6, never))[: len(rest)]
    assert one.failure is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
@pytest.mark.parametrize("processes", [1, 2])
def test_the_batch_that_a_dead_process_owes_is_made_here(
    made: Callable[..., PatchLoader], number: signal.Signals, processes: int
) -> None:
    expected = keys(made(0, 0.0, processes).batches(6 // processes, never))
    one = made(1, 0.3, processes)
    batches = one.batches(6 // processes, never)
    first = next(batches)
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, number)
    found = [first["micro"][:, 0, 0, 0].tolist(), *keys(batches)]
    assert found == expected[: len(found)]
    assert len(found) < len(expected)
    assert one.failure is not None
    assert f"was ended by {number.name}" in one.failure
    assert "give fewer --num_threads (now 1)" in one.failure


def test_loader_processes_leave_signals_to_the_first(made: Callable[..., PatchLoader]) -> None:
    one = made(2, 0.05)
    batches = one.batches(6, never)
    found = [next(batches)["micro"][:, 0, 0, 0].tolist()]
    for child in multiprocessing.active_children():
        for number in STOPPING:
            assert child.pid is not None
            os.kill(child.pid, number)
    assert found + keys(batches) == keys(made(0).batches(6, never))
    assert one.failure is None


def test_a_stop_does_not_wait_for_processes_that_never_answer(
    made: Callable[..., PatchLoader],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training.patch_loader, "LOOKED_EVERY", 0.1)
    monkeypatch.setattr(training.patch_loader, "STALLED", 0.3)
    looks: list[bool] = []

    def stopping() -> bool:
        looks.append(len(looks) >= 4)
        return looks[-1]

    one = made(1, 3600.0)
    assert keys(one.batches(6, stopping)) == keys(made(0).batches(6, never))[:1]
    assert len(looks) == 5
    told = capsys.readouterr().err
    assert told.count("no patches for 0.3 s from 1 loader processes") == 1
    assert one.failure is None


def test_a_process_that_stands_still_in_the_middle_of_a_batch_holds_nothing_up(
    made: Callable[..., PatchLoader],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Part of the batch is there, which whoever reads it would wait for."""
    monkeypatch.setattr(training.patch_loader, "LOOKED_EVERY", 0.1)
    monkeypatch.setattr(training.patch_loader, "STALLED", 0.3)
    one, stop = made(1), False
    batches = one.batches(6, lambda: stop)
    found = [next(batches)["micro"][:, 0, 0, 0].tolist()]
    time.sleep(0.5)  # the next batch is taken, and the one after stands in the pipe
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    found += keys(one.batches(1, never))
    threading.Timer(1.0, os.kill, (child.pid, signal.SIGCONT)).start()
    found += keys(one.batches(1, never))  # it goes on
    time.sleep(0.5)
    os.kill(child.pid, signal.SIGSTOP)
    stop = True
    found += keys(one.batches(3, lambda: stop))
    assert found == keys(made(0).batches(len(found), never))
    assert len(found) < 6
    assert "no patches for 0.3 s from 1 loader processes" in capsys.readouterr().err
    assert one.failure is None


def test_what_keeps_a_process_from_starting_is_told(
    made: Callable[..., PatchLoader], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(2)

    def refused() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(multiprocessing, "Pipe", refused)
    told = r"^cannot start loader process 1 of 2 \(Too many open files\): give fewer --num_threads"
    with pytest.raises(UserError, match=told):
        next(one.batches(1, never))


def test_a_process_that_dies_in_the_middle_of_a_batch_is_seen(
    made: Callable[..., PatchLoader],
) -> None:
    """It waits with most of a batch unwritten, since nobody reads it."""
    one = made(2)
    batches = one.batches(6, never)
    first = next(batches)
    time.sleep(0.5)
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    found = [first["micro"][:, 0, 0, 0].tolist(), *keys(batches)]
    assert found == keys(made(0).batches(len(found), never))
    assert one.failure is not None


def test_loader_processes_end_with_the_first(tmp_path: Path) -> None:
    """Also in the middle of a batch, and each though the others were forked with its pipe."""
    first = multiprocessing.get_context("fork").Process(target=begin, args=(tmp_path,))
    first.start()
    while not (tmp_path / "pids").exists():
        time.sleep(0.01)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    for pid in (tmp_path / "pids").read_text().split():
        while Path(f"/proc/{pid}").exists() and "Z" not in state_of(pid):
            time.sleep(0.01)  # a hang fails by the limit of the test's runner


def state_of(pid: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def begin(folder: Path) -> None:
    """Take one batch of three loader processes, tell their ids, and wait."""
    batches = loader(3).batches(6, never)
    next(batches)
    time.sleep(0.3)
    pids = " ".join(str(child.pid) for child in multiprocessing.active_children())
    (folder / "partial").write_text(pids)
    (folder / "partial").rename(folder / "pids")
    time.sleep(600)


def test_an_error_in_a_loader_process_is_raised_here(made: Callable[..., PatchLoader]) -> None:
    class Broken(Numbers):
        def __getitem__(self, key: int) -> Item:
            raise UserError("the volume is gone: put it back")

    sampler = EpochSampler(LENGTH, 0)
    data: Any = Broken()
    one = PatchLoader(data, sampler, 2, 1, False)
    with pytest.raises(UserError, match="the volume is gone: put it back"):
        next(one.batches(1, never))
    one.close()


def test_no_process_is_left(made: Callable[..., PatchLoader]) -> None:
    one = made(2)
    next(one.batches(6, never))
    children = multiprocessing.active_children()
    one.close()
    for child in children:
        child.join(10)
        assert child.exitcode == -signal.SIGKILL


def test_a_long_name_of_the_temporary_folder_stops_nothing(
    made: Callable[..., PatchLoader], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The name of a socket in it may have 107 letters; nothing is handed over by sockets."""
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert keys(made(2).batches(6, never)) == keys(made(0).batches(6, never))
    assert list(folder.iterdir()) == []
