"""Batches from loader processes, which neither signals nor a full /dev/shm bring down unseen."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.patches import Item, PatchDataset
from data.sampling import EpochSampler
from util.interrupt import leave_signals_to_the_first

LOOKED_EVERY = 5.0  # seconds between two looks at whether a stop was asked for
STALLED = 45.0  # seconds without a batch after which a line says so
Arrays = dict[str, np.ndarray]


class PatchLoader:
    """Batches of one process's share of every epoch, from where its sampler stands.

    Loader processes hand over plain arrays by a pipe. Tensors would go through /dev/shm and sockets
    in TMPDIR, where a full disk or a long name loses them without a word. Where the loader
    processes fail, the batch that is due is made here, so that the step is whole and all training
    processes may stop after it.

    Args:
        dataset: of patches; its items depend on their key alone.
        sampler: of this process, at the first item that is due; each epoch is followed by the next.
        batch_size: items of a batch.
        workers: loader processes; 0 loads in this one.
        seed: of the loader processes' own chance.
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
        seed: int,
        pinned: bool,
    ) -> None:
        self._dataset = dataset
        self._sampler = sampler
        self._batch_size = batch_size
        self._count = workers
        self._pinned = pinned
        self._owed: deque[list[int]] = deque()  # keys of batches that are being made, oldest first
        self._workers: list[BaseProcess] = []
        self._batches: Iterator[Arrays] | None = None
        self.failure: str | None = None
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._key_lists(),
            num_workers=workers,
            collate_fn=as_arrays,
            worker_init_fn=leave_signals_to_the_first,
            timeout=LOOKED_EVERY if workers else 0,
            # A generator of its own, so that starting the workers draws no global number.
            generator=torch.Generator().manual_seed(seed),
        )

    def batches(self, count: int, stopping: Callable[[], bool]) -> Iterator[Item]:
        """The next batches.

        After `failure`, and after a stop while none came, one more batch and no further one.

        Args:
            count: how many.
            stopping: whether a stop is asked for.
        """
        if self._batches is None:
            self._batches = self._start()
        waited = 0.0
        while count:
            try:
                arrays = next(self._batches)
            except RuntimeError as error:  # torch has no types of its own for these
                if "DataLoader timed out" in str(error):
                    waited += LOOKED_EVERY
                    if waited - LOOKED_EVERY < STALLED <= waited:
                        self._say_that_none_comes()
                    if not stopping():
                        continue
                elif "exited unexpectedly" in str(error):
                    self.failure = self._why()
                else:
                    raise
                arrays, count = as_arrays([self._dataset[key] for key in self._owed[0]]), 1
            self._owed.popleft()
            waited = 0.0
            count -= 1
            yield self._as_tensors(arrays)

    def close(self) -> None:
        """End the loader processes, which hold nothing that could be lost."""
        for worker in self._workers:
            worker.kill()

    def _key_lists(self) -> Iterator[list[int]]:
        """Keys of one batch after the other, over all epochs to come; no batch spans two."""
        while True:
            keys = list(self._sampler)
            for first in range(0, len(keys), self._batch_size):
                self._owed.append(keys[first : first + self._batch_size])
                yield self._owed[-1]

    def _start(self) -> Iterator[Arrays]:
        others = set(multiprocessing.active_children())
        batches = iter(self._loader)
        self._workers = [
            child for child in multiprocessing.active_children() if child not in others
        ]
        if self._workers:
            # torch's handler would raise an error between any two lines of a step.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return batches

    def _as_tensors(self, arrays: Arrays) -> Item:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if not self._pinned:
            return tensors
        return {name: tensor.pin_memory() for name, tensor in tensors.items()}

    def _why(self) -> str:
        codes = [worker.exitcode for worker in self._workers if worker.exitcode]
        code = codes[0] if codes else 0
        how = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )
        cause = ", as when memory runs out" if code == -signal.SIGKILL else ""
        return (
            f"a loader process {how}{cause}: give fewer --num_threads (now "
            f"{self._count}), or more memory"
        )

    def _say_that_none_comes(self) -> None:
        print(
            f"warning: no patches for {STALLED:g} s from {self._count} loader "
            "processes: is the disk of the volumes there? Ctrl-C saves and stops; --num_threads 0 "
            "does without them",
            file=sys.stderr,
        )


def as_arrays(items: Sequence[Item]) -> Arrays:
    """Items of one batch, stacked: name -> (N, ...)."""
    return {name: np.stack([item[name].numpy() for item in items]) for name in items[0]}
