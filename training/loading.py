"""Batches from loader processes, which neither signals nor a full /dev/shm bring down unseen."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
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


class TrainingLoader:
    """Batches of one process's share of an epoch.

    Loader processes hand over plain arrays by a pipe. Tensors would go through /dev/shm and sockets
    in TMPDIR, where a full disk or a long name loses them without a word. Where the loader
    processes fail, the batch that is due is made here, so that the step is whole and all training
    processes may stop after it.

    Args:
        dataset: of patches; its items depend on their key alone.
        sampler: of this process.
        batch_size: items of a batch.
        workers: loader processes; 0 loads in this one.
        seed: of the loader processes' own chance.
        pinned: put batches into memory that a GPU copies from while it computes.
        processes: that train together, each on its share.

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
        processes: int,
    ) -> None:
        self._dataset = dataset
        self._sampler = sampler
        self._batch_size = batch_size
        self._pinned = pinned
        self._shares = processes
        self._workers: set[BaseProcess] = set()
        self.failure: str | None = None
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=as_arrays,
            worker_init_fn=leave_signals_to_the_first,
            persistent_workers=workers > 0,
            timeout=LOOKED_EVERY if workers else 0,
            # A generator of its own, so that starting an epoch's workers draws no global number.
            generator=torch.Generator().manual_seed(seed),
        )

    def batches(self, epoch: int, offset: int, stopping: Callable[[], bool]) -> Iterator[Item]:
        """Batches of an epoch from item `offset` on.

        After `failure`, and after a stop while none came, one more batch and no further one.

        Args:
            epoch: from 0.
            offset: items of it that all processes have used.
            stopping: whether a stop is asked for.
        """
        self._sampler.set_position(epoch, offset)
        iterator = self._start()
        waited, is_over = 0.0, False
        while not is_over:
            try:
                arrays = next(iterator, None)
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
                arrays, is_over = self._made_here(epoch, offset), True
            if arrays is None:
                return
            waited = 0.0
            offset += len(next(iter(arrays.values()))) * self._shares
            yield self._as_tensors(arrays)

    def close(self) -> None:
        """End the loader processes, which hold nothing that could be lost."""
        for worker in self._workers:
            worker.kill()

    def _start(self) -> Iterator[Arrays]:
        others = set(multiprocessing.active_children())
        iterator = iter(self._loader)
        if self._loader.num_workers:
            self._workers |= set(multiprocessing.active_children()) - others
            # torch's handler would raise an error between any two lines of a step.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return iterator

    def _made_here(self, epoch: int, offset: int) -> Arrays | None:
        """The batch that comes after `offset` items, None behind the last."""
        self._sampler.set_position(epoch, offset)
        keys = list(islice(self._sampler, self._batch_size))
        return as_arrays([self._dataset[key] for key in keys]) if keys else None

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
            f"{self._loader.num_workers}), or more memory"
        )

    def _say_that_none_comes(self) -> None:
        print(
            f"warning: no patches for {STALLED:g} s from {self._loader.num_workers} loader "
            "processes: is the disk of the volumes there? Ctrl-C saves and stops; --num_threads 0 "
            "does without them",
            file=sys.stderr,
        )


def as_arrays(items: Sequence[Item]) -> Arrays:
    """Items of one batch, stacked: name -> (N, ...)."""
    return {name: np.stack([item[name].numpy() for item in items]) for name in items[0]}
