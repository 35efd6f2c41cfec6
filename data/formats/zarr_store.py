"""Zarr arrays and OME-Zarr images as volumes that stay where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from data.formats.zarr_voxels import ZarrVoxels, address_of, is_address, open_zarr
from data.volumes.volume import Volume
from util.errors import UserError

ZARR_FILES = (".zarray", ".zgroup", "zarr.json")
MILLIMETRES = {
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "meter": 1000.0,
}
SPATIAL = ("z", "y", "x")


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
        UserError: not a store, several time points or channels, not three-dimensional, complex or
            structured voxels.
    """
    address = address_of(path)
    found = open_zarr(address)
    component, stated, leading = "", None, 0
    attributes = dict(found.attrs)
    images = attributes.get("ome", attributes).get("multiscales")
    if images:
        try:
            component, stated, leading = _full_resolution(images[0], address)
            found = found[component]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"{address} is a damaged OME-Zarr image ({type(error).__name__}: {error}): write "
                "it again, or give one of its arrays"
            ) from error
    elif not hasattr(found, "shape"):
        raise UserError(
            f"{address} is a Zarr group without an OME-Zarr image: give the array inside it "
            f"({', '.join(sorted(map(str, found.keys()))) or 'it holds none'})"
        )
    else:
        stated = _plain_spacing(attributes)
    shape = tuple(int(edge) for edge in found.shape)
    if len(shape) != leading + 3 or any(edge != 1 for edge in shape[:leading]):
        raise UserError(
            f"{address} has shape {shape}: expected one volume (z, y, x), without further time "
            "points or channels: write the one that is wanted to a store of its own"
        )
    if np.dtype(found.dtype).kind not in "iufb":
        raise UserError(f"{address} holds voxels of type {found.dtype}, expected numbers")
    voxels = cast(np.ndarray, ZarrVoxels(address, component, (0,) * leading))
    known = spacing or stated
    affine = np.diag([*(known or (1.0, 1.0, 1.0)), 1.0])
    return Volume(voxels, affine, address, spacing_known=known is not None)


def _full_resolution(
    image: Mapping[str, Any], address: str
) -> tuple[str, tuple[float, float, float] | None, int]:
    """(array's name, spacing (x, y, z) in mm, axes before z) of an OME-Zarr image.

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
            f"{address} has the axes {', '.join(names)}: expected them to end in z, y, x"
        )
    transforms: Sequence[Mapping[str, Any]] = [
        *dataset.get("coordinateTransformations", []),
        *image.get("coordinateTransformations", []),
    ]
    factors = np.ones(3)
    scaled = False
    for transform in transforms:
        if transform.get("type") == "scale":
            factors *= np.array(transform["scale"][-3:], dtype=np.float64)
            scaled = True
    units = [MILLIMETRES.get(str(axis.get("unit", "")).lower()) for axis in axes[-3:]]
    if not scaled or None in units:
        return str(dataset["path"]), None, len(names) - 3
    z, y, x = (float(f) * float(u or 1.0) for f, u in zip(factors, units, strict=True))
    if min(x, y, z) <= 0:
        raise ValueError(f"voxels of {x:g} x {y:g} x {z:g} mm")
    return str(dataset["path"]), (x, y, z), len(names) - 3


def _plain_spacing(attributes: Mapping[str, Any]) -> tuple[float, float, float] | None:
    stated = attributes.get("spacing")
    if not isinstance(stated, list | tuple) or len(stated) != 3:
        return None
    z, y, x = (float(edge) for edge in stated)
    return (x, y, z) if min(x, y, z) > 0 else None
