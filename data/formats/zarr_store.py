"""Zarr arrays and OME-Zarr images as volumes that stay where they are: on a disk, or at any address
that fsspec knows; voxels are read where they are asked for."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from data.formats.zarr_voxels import ZarrVoxels, address_of, is_address, open_zarr
from data.volumes.geometry import millimetres_per, screen_affine
from data.volumes.volume import Volume
from util.errors import UserError, reason_of, some_of

ZARR_FILES = (".zarray", ".zgroup", "zarr.json")
SPATIAL = ("z", "y", "x")
MOST_SHOWN = 60  # characters of an attribute in a message
MOST_COUNTED = 2000  # chunks that are looked for one by one; beyond, that takes long
_SAID: set[str] = set()  # stores that a line was said of


@dataclass(frozen=True)
class Place:
    """What a store states of its voxels, along (x, y, z) in mm."""

    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    first: tuple[float, float, float] = (0.0, 0.0, 0.0)  # centre of the first voxel


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
    ome = ome if isinstance(ome, Mapping) else {}
    images = ome.get("multiscales")
    if isinstance(images, list) and len(images) > 1:
        raise UserError(
            f"{address} holds {len(images)} OME-Zarr images: give the array of one of them"
        )
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
    elif "bioformats2raw.layout" in ome:
        return read_zarr(f"{address.rstrip('/')}/{_one_series(found, address)}", spacing)
    elif not hasattr(found, "shape"):
        raise UserError(
            f"{address} is a Zarr group without an OME-Zarr image: give the array inside it "
            f"({_names_in(found, address)})"
        )
    else:
        place = _plain_place(attributes)
        _check_plain(found, attributes, address)
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


def _check_plain(array: Any, attributes: Mapping[str, Any], address: str) -> None:
    """Refuse what a plain array states of its axes and values that would have to be applied."""
    named = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    names = [str(name).lower() for name in named or ()]
    if set(names[-3:]) == set(SPATIAL) and tuple(names[-3:]) != SPATIAL:
        raise UserError(
            f"{address} has the axes {some_of(names, 5)}: expected them to end in z, y, x"
        )
    for name, neutral in (("scale_factor", 1), ("add_offset", 0)):
        if not _is_neutral(attributes.get(name), neutral):
            raise UserError(
                f"{address} states {name} {str(attributes[name])[:MOST_SHOWN]}: apply it, and save "
                "without"
            )


def _is_neutral(stated: Any, neutral: int) -> bool:
    """Whether a stated scaling leaves values as they are. Three numbers are one for each axis, of
    voxel sizes or a place, and none of values; what they mean is not agreed on."""
    if stated is None:
        return True
    try:
        numbers = np.ravel(np.asarray(stated, dtype=np.float64))
    except (TypeError, ValueError):
        return False
    return numbers.size == len(SPATIAL) or bool((numbers == neutral).all())


def _one_series(group: Any, address: str) -> str:
    """The one image of a store by bioformats2raw, whose images are called 0, 1, 2 ..."""
    try:
        series = sorted(filter(str.isdecimal, map(str, group.keys())), key=int)
    except Exception:  # noqa: BLE001 - an address that cannot be listed; the stores' own errors
        series = []
    if len(series) > 1:
        raise UserError(
            f"{address} holds {len(series)} OME-Zarr images: give one of them by its path, "
            f"{address.rstrip('/')}/NAME with NAME {some_of(series)}"
        )
    return series[0] if series else "0"


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
