"""Zarr arrays and OME-Zarr images as volumes that stay where they are: on a disk, or at any address
that fsspec knows; voxels are read where they are asked for."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from data.volumes.checks import check_finite
from data.volumes.geometry import millimetres_per, screen_affine
from data.volumes.volume import Volume
from util.errors import UserError, reason_of, some_of

Index = int | slice | tuple[int | slice, ...]

ZARR_FILES = (".zarray", ".zgroup", "zarr.json")
SPATIAL = ("z", "y", "x")
MOST_COUNTED = 2000  # chunks that are looked for one by one; beyond, that takes long
_SAID: set[str] = set()  # stores that a line was said of


@dataclass(frozen=True)
class Place:
    """What a store states of its voxels, along (x, y, z) in mm."""

    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    first: tuple[float, float, float] = (0.0, 0.0, 0.0)  # centre of the first voxel


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


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr store: a folder with its files, or an address."""
    return is_address(path) or any((path / name).is_file() for name in ZARR_FILES)


def read_zarr(path: str | Path, spacing: tuple[float, float, float] | None = None) -> Volume:
    """Open a three-dimensional Zarr array, or the full resolution of an OME-Zarr image.

    Nothing is read but the metadata; patches are read when they are drawn.

    Args:
        path: folder or fsspec address of the store.
        spacing: voxel size (x, y, z) in mm in place of what the file states.

    Returns:
        A volume whose array is a `ZarrVoxels`; its axes are (z, y, x). A plain array states no
        voxel size: 1 mm is assumed unless its attributes hold `spacing`, as (z, y, x) in mm.

    Raises:
        UserError: not a store, several time points or channels, not three-dimensional, no voxels,
            complex or structured ones.
    """
    address = address_of(path)
    found = open_zarr(address)
    component, place, leading = "", None, 0
    attributes = dict(found.attrs)
    ome = attributes.get("ome", attributes)
    images = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if images:
        try:
            component, place, leading = _full_resolution(images[0], address)
            found = found[component]
            if not hasattr(found, "shape"):
                raise TypeError(f"{component} is no array")
        except UserError:
            raise
        except Exception as error:  # the stores raise errors of many libraries
            raise UserError(
                f"{address} is a damaged OME-Zarr image ({reason_of(error)}): write "
                "it again, or give one of its arrays"
            ) from error
    elif not hasattr(found, "shape"):
        raise UserError(
            f"{address} is a Zarr group without an OME-Zarr image: give the array inside it "
            f"({_names_in(found, address)})"
        )
    else:
        place = _plain_place(attributes)
    shape = tuple(int(edge) for edge in found.shape)
    if len(shape) != leading + 3 or any(edge != 1 for edge in shape[:leading]):
        raise UserError(
            f"{address} has shape {shape}: expected one volume (z, y, x), without further time "
            "points or channels: write the one that is wanted to a store of its own"
        )
    if 0 in (*shape, *found.chunks):
        raise UserError(
            f"{address} has shape {shape} in chunks of {found.chunks} and so holds no voxel: "
            "write it again"
        )
    if np.dtype(found.dtype).kind not in "iufb":
        raise UserError(f"{address} holds voxels of type {found.dtype}, expected numbers")
    if not is_address(address):
        _say_what_is_missing(found, address)
    voxels = cast(np.ndarray, ZarrVoxels(address, component, (0,) * leading))
    known = spacing is not None or place is not None
    place = Place() if place is None else place
    affine = screen_affine(spacing or place.spacing, place.first)
    return Volume(voxels, affine, address, spacing_known=known)


def _names_in(group: Any, address: str) -> str:
    try:
        return some_of(sorted(map(str, group.keys()))) or "it holds none"
    except Exception as error:  # the stores raise errors of many libraries
        raise UserError(
            f"{address} is a damaged Zarr group ({reason_of(error)}): give the array inside it"
        ) from error


def _say_what_is_missing(array: Any, address: str) -> None:
    """Tell of chunks that are not there: Zarr leaves out those of one value, a broken copy any."""
    promised = int(array.nchunks)
    if promised > MOST_COUNTED or address in _SAID:
        return
    there = int(array.nchunks_initialized)
    if there < promised:
        _SAID.add(address)
        print(
            f"warning: {promised - there} of {promised} chunks of {address} are not there, their "
            f"voxels are {array.fill_value}: is the copy whole?",
            file=sys.stderr,
        )


def _full_resolution(image: Mapping[str, Any], address: str) -> tuple[str, Place | None, int]:
    """(array's name, voxel size and place, axes before z) of an OME-Zarr image.

    Versions 0.4 and 0.5 name their axes; 0.3 lists letters; earlier ones are always t, c, z, y, x.
    """
    dataset = image["datasets"][0]
    axes = [
        {"name": axis} if isinstance(axis, str) else dict(axis)
        for axis in image.get("axes", ["t", "c", *SPATIAL])
    ]
    names = [str(axis["name"]).lower() for axis in axes]
    if tuple(names[-3:]) != SPATIAL:
        raise UserError(
            f"{address} has the axes {some_of(names, 5)}: expected them to end in z, y, x"
        )
    transforms: Sequence[Mapping[str, Any]] = [
        *dataset.get("coordinateTransformations", []),
        *image.get("coordinateTransformations", []),
    ]
    factors, origin = np.ones(3), np.zeros(3)  # z, y, x
    scaled = False
    for transform in transforms:
        kind = transform.get("type")
        if kind == "scale":
            factor = np.array(transform["scale"][-3:], dtype=np.float64)
            factors, origin = factors * factor, origin * factor
            scaled = True
        elif kind == "translation":
            origin = origin + np.array(transform["translation"][-3:], dtype=np.float64)
        elif kind != "identity":
            raise UserError(
                f"{address} has a transformation of type {some_of([str(kind)])}: expected scale, "
                "translation or identity: write it again with these, or give one of its arrays"
            )
    stated = [millimetres_per(str(axis.get("unit", ""))) for axis in axes[-3:]]
    units = [unit for unit in stated if unit is not None]
    if not scaled or len(units) < 3:
        return str(dataset["path"]), None, len(names) - 3
    edges, first = factors * units, origin * units
    if not (np.isfinite([edges, first]).all() and edges.min() > 0):
        raise ValueError(f"scale {factors}, translation {origin}")
    return str(dataset["path"]), Place(_xyz(edges), _xyz(first)), len(names) - 3


def _xyz(of_zyx: np.ndarray) -> tuple[float, float, float]:
    z, y, x = map(float, of_zyx)
    return x, y, z


def _plain_place(attributes: Mapping[str, Any]) -> Place | None:
    stated = attributes.get("spacing")
    try:
        z, y, x = (float(edge) for edge in stated or ())
    except (TypeError, ValueError):
        return None
    return Place((x, y, z)) if all(0 < edge < math.inf for edge in (x, y, z)) else None
