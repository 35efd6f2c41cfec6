"""Memory-mapped voxels: open them, find where they lie in their file, let go of their pages."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.errors import UserError

FAULT_AROUND = 1 << 21
"""Bytes given back on either side too: Linux maps up to a huge page around one that is read."""


@dataclass(frozen=True)
class MappedRegion:
    """Where a mapped array's voxels lie: enough to map them again in another process."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def map_file(
    path: Path, dtype: np.dtype, shape: tuple[int, int, int], offset: int, source: str
) -> np.memmap:
    """Map voxels of a file read-only.

    Args:
        path: file that holds the voxels, without gaps, x fastest.
        dtype: stored type with its byte order.
        shape: (slices, rows, columns).
        offset: bytes before the first voxel.
        source: name for the error message (the file as the user knows it).

    Raises:
        UserError: the file is shorter than its header promises.
    """
    promised = offset + math.prod(shape) * dtype.itemsize
    present = path.stat().st_size
    if present < promised:
        raise UserError(
            f"{source} is truncated: it holds {present} bytes, its header promises {promised}: "
            "copy or export it again"
        )
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def mapped_region(array: np.ndarray) -> MappedRegion | None:
    """Place of a mapped array (or a view of one) in its file; None for an array in memory."""
    root = _mapped_root(array)
    if root is None:
        return None
    offset = root.offset + _address(array) - _address(root)
    return MappedRegion(str(root.filename), array.dtype, array.shape, array.strides, offset)


def map_region(region: MappedRegion) -> np.ndarray:
    """Map a region again; the inverse of `mapped_region`."""
    below, above = _reach(region.shape, region.strides, region.dtype.itemsize)
    start = region.offset - below
    try:
        flat = np.memmap(region.path, np.uint8, "r", offset=start, shape=(below + above,))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{region.path} can no longer be mapped ({error}): "
            "leave input and cache files in place while the program runs"
        ) from error
    return np.ndarray.__new__(
        np.memmap, region.shape, region.dtype, flat, region.offset - start, region.strides
    )


def release_pages(array: np.ndarray) -> None:
    """Let the system take back the pages of a read-only mapped array; its values stay readable.

    Without this, reading slice after slice makes the process look as large as the volume. No
    effect on arrays in memory, on writable maps and where the system has no such call.
    """
    root = _mapped_root(array)
    if root is None or root.mode != "r" or array.size == 0 or not hasattr(mmap, "MADV_DONTNEED"):
        return
    pages: object = root.base
    if not isinstance(pages, mmap.mmap):
        return
    below, above = _reach(array.shape, array.strides, array.dtype.itemsize)
    # np.memmap starts its map at a multiple of the allocation granularity.
    map_start = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY
    start = root.offset + _address(array) - _address(root) - below - map_start
    first = max(start - FAULT_AROUND, 0)
    first -= first % mmap.PAGESIZE
    last = min(start + below + above + FAULT_AROUND, len(pages))
    pages.madvise(mmap.MADV_DONTNEED, first, last - first)


def _mapped_root(array: np.ndarray) -> np.memmap | None:
    """The array that owns the map; its `offset` is right, which a view's need not be."""
    node: object = array
    while isinstance(node, np.ndarray):
        owner: object = node.base
        if isinstance(node, np.memmap) and isinstance(owner, mmap.mmap):
            return node if node.filename is not None else None
        node = owner
    return None


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _reach(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Bytes that a strided array needs (before, from) its first element's address."""
    spans = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    below = -sum(span for span in spans if span < 0)
    return below, sum(span for span in spans if span > 0) + itemsize
