"""Batches from loader processes, whose deaths and silences are seen."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import NamedTuple

import numpy as np
import torch

from data.patches import Item, PatchDataset
from data.sampling import EpochSampler
from util.errors import UserError
from util.interrupt import leave_signals_to_the_first

LOOKED_EVERY = 5.0  # seconds between two looks at whether a stop was asked for
STALLED = 45.0  # seconds without a batch after which a line says so
AHEAD = 2  # batches that each process is asked for before the first is taken
Arrays = dict[str, np.ndarray]


class Worker(NamedTuple):
    """A loader process and this end of its pipe."""

    process: BaseProcess
    pipe: Connection

    def receive(self) -> Future[Arrays | Exception]:
        """What it sends next. A thread takes it, as one who reads a pipe waits for the whole
        message, and the process may stand still in the middle of it."""
        coming: Future[Arrays | Exception] = Future()

        def take() -> None:
            try:
                coming.set_result(self.pipe.recv())
            except Exception as error:  # noqa: BLE001 - it is raised where the batch is due
                coming.set_exception(error)

        Thread(target=take, daemon=True).start()
        return coming


class PatchLoader:
    """Batches of one process's share of every epoch, from where its sampler stands.

    Each loader process has a pipe of its own, of which nobody else holds the ends: so this process
    reads its end when the other dies, also in the middle of a batch, and the other way round.
    torch's DataLoader shares one pipe among all, where both wait for ever, or hands over tensors by
    /dev/shm and sockets in TMPDIR, where a full disk or a long name loses them without a word.
    Where a process fails, the batch that is due is made here, so that the step is whole and all
    training processes may stop after it.

    Args:
        dataset: of patches; its items depend on their key alone.
        sampler: of this process, at the first item that is due; each epoch is followed by the next.
        batch_size: items of a batch; no batch spans two epochs.
        workers: loader processes; 0 loads in this one.
        pinned: put batches into memory that a GPU copies from while it computes.

    Attributes:
        failure: why loader processes ended, in words; None as long as they have not.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        sampler: EpochSampler,
        batch_size: int,
        workers: int,
        pinned: bool,
    ) -> None:
        self._dataset = dataset
        self._key_lists = key_lists(sampler, batch_size)
        self._count = workers
        self._pinned = pinned
        self._owed: deque[list[int]] = deque()  # keys of batches that are being made, oldest first
        self._workers: deque[Worker] = deque()  # the one whose batch is due first
        self._coming: Future[Arrays | Exception] = Future()  # the batch that is due
        self.failure: str | None = None

    def batches(self, count: int, stopping: Callable[[], bool]) -> Iterator[Item]:
        """The next batches.

        After `failure`, and after a stop while none came, one more batch and no further one.

        Args:
            count: how many.
            stopping: whether a stop is asked for.

        Raises:
            UserError: as the dataset.
        """
        if count and self._count and not self._workers:
            self._start()
        while count:
            arrays = self._received(stopping) if self._workers else None
            if arrays is None:
                if self._workers:  # none will come
                    count = 1
                else:
                    self._owed.append(next(self._key_lists))
                arrays = made(self._dataset, self._owed[0])
            self._owed.popleft()
            count -= 1
            yield self._as_tensors(arrays)

    def close(self) -> None:
        """End the loader processes, which hold nothing that could be lost."""
        for process, _ in self._workers:
            process.kill()
        if self._workers:
            wait([self._coming], LOOKED_EVERY)  # the thread reads the end of the pipe
        for _, pipe in self._workers:
            pipe.close()

    def _start(self) -> None:
        try:
            for _ in range(self._count):
                ours, theirs = multiprocessing.Pipe()
                inherited = [ours, *(pipe for _, pipe in self._workers)]
                process = multiprocessing.Process(
                    target=serve, args=(self._dataset, theirs, inherited), daemon=True
                )
                process.start()
                theirs.close()
                self._workers.append(Worker(process, ours))
        except OSError as error:
            raise UserError(
                f"cannot start loader process {len(self._workers) + 1} of {self._count} "
                f"({error.strerror}): give fewer --num_threads, or raise the limit (ulimit -a)"
            ) from error
        for worker in [*self._workers] * AHEAD:
            self._ask(worker)
        self._coming = self._workers[0].receive()

    def _ask(self, worker: Worker) -> None:
        self._owed.append(next(self._key_lists))
        with suppress(OSError):  # it is dead, which is told when its batch is due
            worker.pipe.send(self._owed[-1])

    def _received(self, stopping: Callable[[], bool]) -> Arrays | None:
        """The batch that is due; None where none comes."""
        worker, coming, waited = self._workers[0], self._coming, 0.0
        while not wait([coming], LOOKED_EVERY).done:
            waited += LOOKED_EVERY
            if waited - LOOKED_EVERY < STALLED <= waited:
                self._say_that_none_comes()
            if stopping():
                return None
        try:
            answer = coming.result()
        except (EOFError, OSError):
            self.failure = self._why(worker.process)
            return None
        if isinstance(answer, Exception):
            raise answer
        self._workers.rotate(-1)
        self._ask(worker)
        self._coming = self._workers[0].receive()
        return answer

    def _as_tensors(self, arrays: Arrays) -> Item:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if not self._pinned:
            return tensors
        return {name: tensor.pin_memory() for name, tensor in tensors.items()}

    def _why(self, process: BaseProcess) -> str:
        process.join(LOOKED_EVERY)
        code = process.exitcode or 0
        how = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )
        cause = ", as when memory runs out" if code == -signal.SIGKILL else ""
        return (
            f"a loader process {how}{cause}: give fewer --num_threads (now {self._count}), or more "
            "memory"
        )

    def _say_that_none_comes(self) -> None:
        print(
            f"warning: no patches for {STALLED:g} s from {self._count} loader processes: is the "
            "disk of the volumes there? Ctrl-C saves and stops; --num_threads 0 does without them",
            file=sys.stderr,
        )


def key_lists(sampler: EpochSampler, batch_size: int) -> Iterator[list[int]]:
    """Keys of one batch after the other, over all epochs to come."""
    while True:
        keys = list(sampler)
        for first in range(0, len(keys), batch_size):
            yield keys[first : first + batch_size]


def made(dataset: PatchDataset, keys: Sequence[int]) -> Arrays:
    """Items of one batch, stacked: name -> (N, ...)."""
    items = [dataset[key] for key in keys]
    return {name: np.stack([item[name].numpy() for item in items]) for name in items[0]}


def serve(dataset: PatchDataset, pipe: Connection, inherited: Sequence[Connection]) -> None:
    """A loader process: make batches of the keys that come, until the other end is closed.

    Args:
        dataset: of patches.
        pipe: keys come, arrays go; an error goes in their place.
        inherited: ends that a fork brings with it and that nobody but the first process may hold.
    """
    leave_signals_to_the_first()
    torch.set_num_threads(1)
    for other in inherited:
        other.close()
    while True:
        try:
            keys = pipe.recv()
        except (EOFError, OSError):
            return
        answer: Arrays | Exception
        try:
            answer = made(dataset, keys)
        except Exception as error:  # noqa: BLE001 - it is raised in the first process
            known = type(error).__module__ in ("builtins", "util.errors")
            answer = error if known else RuntimeError(traceback.format_exc())
        try:
            pipe.send(answer)
        except OSError:
            return  # the first process is gone
