"""Where patches may lie, and how one is drawn: from the set of admissible positions, never by
trial and error, so that drawing cannot loop for ever and every position is equally likely.
`EpochSampler` gives the order of a run's items, and the place in it to go on from after a stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from data.volumes.mapping import release_pages
from data.volumes.volume import Volume
from util.errors import UserError

Rule = Literal["inside", "centre"]


def item_generator(seed: int, *keys: int) -> np.random.Generator:
    """Random generator that depends on these whole numbers (each 0 to 2^64 - 1) and nothing else.

    Different tuples give independent streams. The length goes in too, since `SeedSequence` pads
    with zeros and would otherwise give (1,) and (1, 0) the same stream.
    """
    words = np.array([len(keys), seed, *keys], dtype=np.uint64).view(np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))


class PatchPositions:
    """All positions of a square in-plane patch that a mask admits in one volume.

    Memory is one count per row of the volume, and only with a mask; the admissible columns of a
    row are worked out again, from the mask, when a patch is drawn there.

    Args:
        volume: only its size and name are used.
        patch_size: side of the patch in pixels.
        mask: (z, y, x), non-zero where admitted, on the volume's grid (may be memory-mapped); None
            admits everything.
        rule: "inside": the whole patch lies in the mask. "centre": its centre pixel (offset
            patch_size // 2) does, and the patch lies in the volume.

    Raises:
        UserError: no position is admissible, or the mask is not on the volume's grid.
    """

    def __init__(
        self,
        volume: Volume,
        patch_size: int,
        mask: np.ndarray | None = None,
        rule: Rule = "inside",
    ) -> None:
        shape = volume.size[::-1]
        if mask is not None and mask.shape != shape:
            raise UserError(
                f"the mask of {volume.source} has size {_text(mask.shape[::-1])}, its CT "
                f"{_text(volume.size)}: give a mask made on the same grid"
            )
        # As a volume, so that a memory-mapped mask goes to loader workers by name.
        self._mask = None if mask is None else Volume(mask, volume.affine, volume.source)
        self._patch_size = patch_size
        self._rule: Rule = rule
        self._rows = max(0, shape[1] - patch_size + 1)
        self._columns = max(0, shape[2] - patch_size + 1)
        if mask is None:
            self.count = shape[0] * self._rows * self._columns
        else:
            counts = np.zeros((shape[0], self._rows), np.int64)
            if self._rows and self._columns:
                for index, section in enumerate(mask):
                    counts[index] = np.count_nonzero(
                        _admissible(section != 0, patch_size, rule), axis=1
                    )
                    release_pages(section)
            # Positions up to and including each row, so that a search finds a position's row.
            self._row_ends = np.cumsum(counts, axis=None)
            self.count = int(self._row_ends[-1]) if self._row_ends.size else 0
        if self.count == 0:
            raise UserError(_empty_message(volume, patch_size, mask, rule))

    def draw(self, generator: np.random.Generator) -> tuple[int, int, int]:
        """One position, uniform over all: (slice, row, column) of the patch's first pixel."""
        number = int(generator.integers(self.count))
        if self._mask is None:
            line, column = divmod(number, self._columns)
        else:
            line = int(np.searchsorted(self._row_ends, number, side="right"))
            rank = number - (int(self._row_ends[line - 1]) if line else 0)
            section, row = divmod(line, self._rows)
            # The band of rows that one row of positions looks at, a full patch high.
            band = self._mask.array[section, row : row + self._patch_size] != 0
            column = int(np.flatnonzero(_admissible(band, self._patch_size, self._rule)[0])[rank])
        section, row = divmod(line, self._rows)
        return section, row, column


def _admissible(section: np.ndarray, patch_size: int, rule: Rule) -> np.ndarray:
    """Bool (rows - p + 1, columns - p + 1): True where a patch may have its first pixel."""
    if rule == "centre":
        before, after = patch_size // 2, patch_size - patch_size // 2 - 1
        rows, columns = section.shape
        return section[before : rows - after, before : columns - after]
    # Transposed and back: the second pass runs along the columns.
    return _all_true(_all_true(section, patch_size).T, patch_size).T


def _all_true(section: np.ndarray, length: int) -> np.ndarray:
    """True where `length` pixels one below the other are all True, by doubling the run."""
    run = 1
    while run < length:
        step = min(run, length - run)
        section = section[:-step] & section[step:]
        run += step
    return section


def largest_patch(volume: Volume, mask: np.ndarray | None, rule: Rule = "inside") -> int:
    """Side in pixels of the largest square patch that fits, 0 where not even one pixel does."""
    limit = min(volume.size[:2])
    if mask is None:
        return limit
    largest = 0
    for section in _slices(mask):
        # Most slices cannot beat the best so far: one test tells.
        if largest < limit and _fits(section, largest + 1, rule):
            low, high = largest + 1, limit
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if _fits(section, middle, rule) else (low, middle - 1)
            largest = low
    return largest


def _slices(mask: np.ndarray) -> Iterator[np.ndarray]:
    for section in mask:
        yield np.asarray(section) != 0


def _fits(section: np.ndarray, patch_size: int, rule: Rule) -> bool:
    return bool(_admissible(section, patch_size, rule).any())


def _empty_message(volume: Volume, patch_size: int, mask: np.ndarray | None, rule: Rule) -> str:
    largest = largest_patch(volume, mask, rule)
    wanted = f"a {patch_size}x{patch_size} patch"
    if mask is not None and min(volume.size[:2]) >= patch_size:
        place = "the lung mask of " if rule == "inside" else "(centre in the lung mask) "
        problem = f"{wanted} fits nowhere in {place}{volume.source} (size {_text(volume.size)})"
    else:
        problem = f"{wanted} does not fit in {volume.source} (size {_text(volume.size)})"
    if largest == 0:
        return (
            f"{problem}, whose mask is empty: give a mask with lung in it, slices that show some, "
            "or leave it out"
        )
    return f"{problem}: give a patch size of at most {largest}, or leave this volume out"


def _text(size: tuple[int, ...]) -> str:
    return "x".join(str(value) for value in size)


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
