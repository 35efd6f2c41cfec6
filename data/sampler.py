"""The order in which a run goes through its items, and where in it to go on after a stop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from data.sampling import item_generator


class EpochSampler(Sampler[int]):
    """Yields global item keys, epoch * length + index, each index once an epoch.

    The order depends on (seed, epoch) only, so any number of workers gives the same batches. A
    `DataLoader` asks for keys ahead of the batches it has handed out: the training loop, which
    knows how many items it has used, says with `set_position` where to go on. An epoch that was
    yielded to its end is followed by the next one.

    Several processes share an epoch: of each run of `processes` items every one takes its own, so
    a step of all of them uses the items that one process with so much larger batches would use.
    The last items, fewer than there are processes, are left out.

    Args:
        length: items an epoch, as `len(dataset)`.
        seed: 0 to 2^64 - 1.
        shuffle: False yields indices in rising order.
        rank, processes: number of this process and of all.
    """

    def __init__(
        self, length: int, seed: int, shuffle: bool = True, rank: int = 0, processes: int = 1
    ) -> None:
        self._length = length
        self._seed = seed
        self._shuffle = shuffle
        self._rank = rank
        self._processes = processes
        self._epoch = 0
        self._offset = 0

    def set_position(self, epoch: int, offset: int = 0) -> None:
        """Start the next iteration at item number `offset` (0 to length) of `epoch`, from 0.

        Raises:
            ValueError: a position outside the epoch.
        """
        if epoch < 0 or not 0 <= offset <= self._length:
            raise ValueError(
                f"position (epoch {epoch}, offset {offset}) does not exist: expected an epoch of "
                f"0 or more and an offset of 0 to {self._length}"
            )
        self._epoch, self._offset = epoch, offset

    def __iter__(self) -> Iterator[int]:
        epoch, offset = self._epoch, self._offset
        order = self._order(epoch)[offset:]
        shared = len(order) - len(order) % self._processes
        for index in order[self._rank : shared : self._processes]:
            yield epoch * self._length + int(index)
        # A position set while this epoch ran is meant for the next iteration: keep it.
        if (self._epoch, self._offset) == (epoch, offset):
            self._epoch, self._offset = epoch + 1, 0

    def __len__(self) -> int:
        """This process's items in the part of the epoch that the next iteration goes through."""
        return (self._length - self._offset) // self._processes

    def _order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self._length)
        return item_generator(self._seed, epoch).permutation(self._length)
