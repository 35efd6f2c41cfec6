"""Slices of a NIfTI file one after the other, packed or not, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.formats.nifti import read_layout
from data.volumes.cache import gzip_blocks
from data.volumes.volume import in_physical_units
from util.errors import UserError


def nifti_slices(path: Path, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Slices in physical units, float32 (rows, columns), one after the other.

    A packed file is read up to the last slice that is asked for, holding one slice at a time: a
    result of several gigabytes needs neither the memory nor a copy on disk.

    Args:
        path: .nii or .nii.gz.
        indices: increasing.

    Raises:
        UserError: missing, broken or cut off.
    """
    layout = read_layout(path)
    slices, rows, columns = layout.shape
    increasing = all(before < after for before, after in pairwise(indices))
    if not increasing or not all(0 <= index < slices for index in indices):
        raise ValueError(f"slices {list(indices)} of {slices}: expected increasing indices")
    size = rows * columns * layout.dtype.itemsize
    source = str(path)
    with path.open("rb") as stream:
        packed = path.name.lower().endswith(".gz")
        reader = _Skipper(gzip_blocks(stream, source), source) if packed else None
        position = 0
        for index in indices:
            start = layout.offset + index * size
            if reader is None:
                if start + size > path.stat().st_size:
                    raise UserError(f"{source} is truncated: copy or make it again")
                stream.seek(start)
                content = bytearray(stream.read(size))
            else:
                reader.skip(start - position)
                content = reader.read(size)
            stored = np.frombuffer(content, layout.dtype).reshape(rows, columns)
            position = start + size
            yield in_physical_units(stored, layout.slope, layout.intercept)


class _Skipper:
    """Reads and skips bytes of a stream that comes in blocks."""

    def __init__(self, blocks: Iterator[bytes], source: str) -> None:
        self._blocks = blocks
        self._source = source
        self._block = memoryview(b"")

    def skip(self, count: int) -> None:
        while count:
            count -= len(self._take(count))

    def read(self, count: int) -> bytearray:
        content = bytearray()
        while len(content) < count:
            content += self._take(count - len(content))
        return content

    def _take(self, most: int) -> memoryview:
        if not self._block:
            block = next(self._blocks, b"")
            if not block:
                raise UserError(f"{self._source} is truncated: copy or make it again")
            self._block = memoryview(block)
        taken, self._block = self._block[:most], self._block[most:]
        return taken
