"""Batches by loader processes: the same as without, whatever becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

import training.loading
from data.patches import Item
from data.sampling import EpochSampler
from training.loading import TrainingLoader
from util.interrupt import STOPPING

LENGTH = 12


class Numbers(Dataset[Item]):
    """Items that are their key; `slow` takes that many seconds in a loader process."""

    def __init__(self, slow: float = 0.0) -> None:
        self.slow = slow

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, key: int) -> Item:
        if get_worker_info() is not None:
            time.sleep(self.slow)
        return {"micro": torch.full((1, 2, 2), float(key)), "shrunk": torch.tensor(key % 2 == 0)}


def loader(workers: int, slow: float = 0.0, processes: int = 1) -> TrainingLoader:
    data: Any = Numbers(slow)
    sampler = EpochSampler(LENGTH, 0, rank=0, processes=processes)
    return TrainingLoader(data, sampler, 2, workers, 0, False, processes)


@pytest.fixture
def made() -> Iterator[Callable[..., TrainingLoader]]:
    loaders = []
    handler = signal.getsignal(signal.SIGCHLD)

    def make(*words: Any) -> TrainingLoader:
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


@pytest.mark.parametrize("offset", [0, 4, LENGTH])
def test_loader_processes_change_nothing(made: Callable[..., TrainingLoader], offset: int) -> None:
    alone, helped = made(0), made(2)
    for epoch in range(3):
        expected = keys(alone.batches(epoch, offset, never))
        assert keys(helped.batches(epoch, offset, never)) == expected
        assert len(expected) == (LENGTH - offset) // 2
    (first, *_) = helped.batches(0, 0, never)
    assert (first["micro"].dtype, first["shrunk"].dtype) == (torch.float32, torch.bool)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
@pytest.mark.parametrize("processes", [1, 2])
def test_the_batch_that_a_dead_process_owes_is_made_here(
    made: Callable[..., TrainingLoader], number: signal.Signals, processes: int
) -> None:
    expected = keys(made(0, 0.0, processes).batches(0, 0, never))
    one = made(1, 0.3, processes)
    batches = one.batches(0, 0, never)
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


def test_loader_processes_leave_signals_to_the_first(made: Callable[..., TrainingLoader]) -> None:
    one = made(2, 0.05)
    batches = one.batches(0, 0, never)
    found = [next(batches)["micro"][:, 0, 0, 0].tolist()]
    for child in multiprocessing.active_children():
        for number in STOPPING:
            assert child.pid is not None
            os.kill(child.pid, number)
    assert found + keys(batches) == keys(made(0).batches(0, 0, never))
    assert one.failure is None


def test_a_stop_does_not_wait_for_processes_that_never_answer(
    made: Callable[..., TrainingLoader],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training.loading, "LOOKED_EVERY", 0.1)
    monkeypatch.setattr(training.loading, "STALLED", 0.3)
    looks: list[bool] = []

    def stopping() -> bool:
        looks.append(len(looks) >= 4)
        return looks[-1]

    one = made(1, 3600.0)
    assert keys(one.batches(0, 0, stopping)) == keys(made(0).batches(0, 0, never))[:1]
    assert len(looks) == 5
    told = capsys.readouterr().err
    assert told.count("no patches for 0.3 s from 1 loader processes") == 1
    assert one.failure is None


def test_no_process_is_left(made: Callable[..., TrainingLoader]) -> None:
    one = made(2)
    next(one.batches(0, 0, never))
    children = multiprocessing.active_children()
    one.close()
    for child in children:
        child.join(10)
        assert child.exitcode == -signal.SIGKILL
