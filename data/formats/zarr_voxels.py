"""Voxels of a Zarr array, read where they are asked for: on a disk, or at any address that fsspec
knows."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from data.volumes.checks import check_finite
from util.errors import UserError, reason_of

Index = int | slice | tuple[int | slice, ...]


def address_of(path: str | Path) -> str:
    """A path as Zarr wants it: `Path` folds the slashes of s3://bucket into one."""
    return re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", str(path))


def is_address(path: str | Path) -> bool:
    """Whether a path names something beyond the local file system, such as s3://bucket/x.zarr."""
    return "://" in address_of(path)


def open_zarr(path: str | Path) -> Any:
    """Open a Zarr array or group for reading.

    Raises:
        UserError: the package or the protocol's package is missing, or nothing is there.
    """
    try:
        import zarr
    except ImportError as error:
        raise UserError(f"{path} needs the package zarr: pip install zarr") from error
    address = address_of(path)
    try:
        return zarr.open(address, mode="r")
    except ImportError as error:
        raise UserError(f"{address} needs a package for its protocol: {error}") from error
    except Exception as error:  # the stores raise errors of many libraries
        raise UserError(
            f"{address} cannot be opened as Zarr ({reason_of(error)}): give a Zarr "
            "array (z, y, x) or an OME-Zarr image"
        ) from error


class ZarrVoxels:
    """Stands in for `Volume.array`: (z, y, x), or another order of axes, of one Zarr array.

    Opened anew in each process that it is handed to, so a loader worker holds no more than the
    chunks of the patch that it reads.

    Args:
        path: of the store.
        component: array inside a group, "" for the array itself.
        leading: index on each axis before (z, y, x), such as time and channel.
        bounds: (start, stop) along z, y, x.
        order: axes of the view, as numbers of z, y, x: (0, 1, 2) leaves them.
    """

    ndim = 3

    def __init__(
        self,
        path: str,
        component: str = "",
        leading: tuple[int, ...] = (),
        bounds: tuple[tuple[int, int], ...] | None = None,
        order: tuple[int, int, int] = (0, 1, 2),
    ) -> None:
        self._path = path
        self._component = component
        self._leading = leading
        self._order = order
        self._opened: Any = None
        self._opened_by = 0
        shape = self._array.shape[len(leading) :]
        self._bounds = bounds or tuple((0, int(edge)) for edge in shape)
        self.dtype = np.dtype(self._array.dtype)

    @property
    def _array(self) -> Any:
        # A forked loader worker has the array, but not the thread that its network store runs on.
        if self._opened is None or self._opened_by != os.getpid():
            found = open_zarr(self._path)
            self._opened = found[self._component] if self._component else found
            self._opened_by = os.getpid()
        return self._opened

    @property
    def shape(self) -> tuple[int, int, int]:
        """Edges in the order of this view."""
        first, second, third = (
            self._bounds[axis][1] - self._bounds[axis][0] for axis in self._order
        )
        return first, second, third

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels, unpacked."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def transpose(self, order: tuple[int, int, int]) -> ZarrVoxels:
        """A view with its axes in another order."""
        first, second, third = (self._order[axis] for axis in order)
        return self._view(self._bounds, (first, second, third))

    def __getitem__(self, index: Index) -> Any:
        """A range of the first axis is another view; anything with a number in it is read.

        Raises:
            UserError: a voxel that was read is NaN or infinite, or the store failed.
        """
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            if step != 1:
                raise IndexError(f"step {step} of a view of Zarr voxels: only 1 is offered")
            axis, bounds = self._order[0], list(self._bounds)
            low = bounds[axis][0]
            bounds[axis] = (low + start, low + stop)
            return self._view(tuple(bounds), self._order)
        words = index if isinstance(index, tuple) else (index,)
        words = (*words, *(slice(None),) * (3 - len(words)))
        asked: list[int | slice] = [0, 0, 0]
        for axis, word in zip(self._order, words, strict=True):
            low, high = self._bounds[axis]
            asked[axis] = _moved(word, low, high - low)
        return self._read(asked)

    def _read(self, asked: list[int | slice]) -> np.ndarray:
        try:
            found = np.asarray(self._array[(*self._leading, *asked)])
        except UserError:
            raise
        except Exception as error:  # the stores raise errors of many libraries
            raise UserError(
                f"{self._path} cannot be read ({reason_of(error)}): check the store and the network"
            ) from error
        kept = [axis for axis in self._order if isinstance(asked[axis], slice)]
        found = found.transpose([sorted(kept).index(axis) for axis in kept])
        first = asked[0].start if isinstance(asked[0], slice) else asked[0]
        check_finite(found, first, self._path)
        return found

    def _view(self, bounds: tuple[tuple[int, int], ...], order: tuple[int, int, int]) -> ZarrVoxels:
        view = ZarrVoxels.__new__(ZarrVoxels)
        view.__setstate__({**self.__getstate__(), "_bounds": bounds, "_order": order})
        view._opened, view._opened_by = self._opened, self._opened_by
        return view

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _moved(word: int | slice, low: int, length: int) -> int | slice:
    """An index of a view as one of the whole array."""
    if isinstance(word, slice):
        start, stop, step = word.indices(length)
        return slice(low + start, low + stop, step)
    position = int(word)
    if not -length <= position < length:
        raise IndexError(f"index {position} of an axis of {length}")
    return low + (position + length if position < 0 else position)
