"""The part of a case that a page can carry: some slices of all volumes, in one place and scale."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from util.images.resampling import area_average

FEWEST_SLICES = 16  # of an overview, before it gives up slices rather than pixels
DETAIL_SLICES = 8
GZIP_LEVEL = 6  # a third smaller than level 1, for a second a page

Slices = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """One volume of a case."""

    name: str  # as shown
    scale: int  # its pixels across one pixel of the input: 1 or 2^n
    affine: np.ndarray  # (4, 4), voxel (x, y, z) -> mm, of the whole volume


@dataclass(frozen=True)
class Excerpt:
    """A block of a case on the grid of its input."""

    name: str  # for the choice on the page
    slices: range  # indices of the slices, evenly spaced
    # rows, columns: half-open ranges in pixels of the input
    rows: range
    columns: range
    shrink: int = 1  # this many fine pixels are averaged along rows and columns

    def factor(self, scale: int, finest: int) -> int:
        """How many pixels of a volume of this scale become one: none is made coarser than due."""
        return max(1, self.shrink * scale // finest)

    def cut(self, image: np.ndarray, scale: int, finest: int) -> np.ndarray:
        """This part of a whole slice (rows, columns) of a volume of some scale."""
        factor = self.factor(scale, finest)
        part = image[
            self.rows.start * scale : self.rows.stop * scale,
            self.columns.start * scale : self.columns.stop * scale,
        ]
        if factor == 1:
            return part
        # The last pixels of a side that the factor does not divide are left out.
        rows, columns = (length - length % factor for length in part.shape)
        return area_average(part[:rows, :columns], factor)

    def affine(self, affine: np.ndarray, scale: int, finest: int) -> np.ndarray:
        """Affine of the part, from that of the whole volume of this scale."""
        factor = self.factor(scale, finest)
        middle = (factor - 1) / 2
        part = np.diag([factor, factor, self.slices.step, 1.0])
        part[:3, 3] = [
            self.columns.start * scale + middle,
            self.rows.start * scale + middle,
            self.slices.start,
        ]
        return np.asarray(affine, dtype=np.float64) @ part


def plan_excerpts(
    size: tuple[int, int, int], scale: int, voxels: int, focus: tuple[int, int, int]
) -> list[Excerpt]:
    """What a page shows of a case: all of it if it fits, else an overview and a detail.

    The overview has the whole field of view, averaged in plane, in evenly spaced slices. The
    detail has all pixels around the focus in neighbouring slices. Each takes half the voxels.

    Args:
        size: voxels (x, y, z) of the input.
        scale: of the finest volume.
        voxels: of the finest volume that the page may carry.
        focus: (slice, row, column) of the input that both show.

    Raises:
        ValueError: fewer than one voxel.
    """
    if voxels < 1:
        raise ValueError(f"a page of {voxels} voxels shows nothing")
    columns, rows, slices = size
    if columns * rows * slices * scale**2 <= voxels:
        return [Excerpt("whole volume", range(slices), range(rows), range(columns))]
    share = max(1, voxels // 2)
    wanted = min(slices, FEWEST_SLICES)
    shrink = 1
    while _pixels(rows, columns, scale, shrink) * wanted > share and shrink < min(rows, columns):
        shrink *= 2
    shown = max(1, min(slices, share // _pixels(rows, columns, scale, shrink)))
    step = math.ceil(slices / shown)
    overview = Excerpt(
        "overview", range(focus[0] % step, slices, step), range(rows), range(columns), shrink
    )
    depth = min(slices, DETAIL_SLICES)
    side = max(1, math.isqrt(share // (depth * scale**2)))
    detail = Excerpt(
        "detail",
        _around(focus[0], depth, slices),
        _around(focus[1], side, rows),
        _around(focus[2], side, columns),
    )
    return [overview, detail]


def _pixels(rows: int, columns: int, scale: int, shrink: int) -> int:
    return math.ceil(rows * scale / shrink) * math.ceil(columns * scale / shrink)


def _around(centre: int, wanted: int, length: int) -> range:
    """A run of `wanted` indices about the centre, moved so that it stays inside."""
    wanted = min(wanted, length)
    start = min(max(0, centre - wanted // 2), length - wanted)
    return range(start, start + wanted)


def collect(
    excerpts: Sequence[Excerpt],
    layers: Sequence[Layer],
    read: Callable[[Sequence[int]], Iterable[Slices]],
) -> list[dict[str, np.ndarray]]:
    """Cut all excerpts out of all volumes in one pass.

    Args:
        excerpts: see `plan_excerpts`.
        layers: the volumes.
        read: gives, for increasing slice indices, each slice of all volumes (rows, columns) by
            name of the layer.

    Returns:
        For each excerpt its volumes (slices, rows, columns) by name.
    """
    finest = max(layer.scale for layer in layers)
    indices = sorted({index for excerpt in excerpts for index in excerpt.slices})
    parts: list[dict[str, list[np.ndarray]]] = [
        {layer.name: [] for layer in layers} for _ in excerpts
    ]
    for index, images in zip(indices, read(indices), strict=True):
        for excerpt, part in zip(excerpts, parts, strict=True):
            if index in excerpt.slices:
                for layer in layers:
                    part[layer.name].append(excerpt.cut(images[layer.name], layer.scale, finest))
    return [{name: compact(np.stack(images)) for name, images in part.items()} for part in parts]


def compact(values: np.ndarray) -> np.ndarray:
    """A volume in the smallest type that a viewer shows: rounded to int16 or uint16 if it fits.

    Fractions below a unit of HU are no concern of a page; values within [-8, 8] are no HU and
    keep theirs.
    """
    if values.dtype == bool:
        return values.astype(np.int16)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if values.dtype.kind == "f" and low >= -8 and high <= 8:
        return values.astype(np.float32)
    for kind in (np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.rint(values).astype(kind)
    return values.astype(np.float32)


def nifti_gz(array: np.ndarray, affine: np.ndarray) -> bytes:
    """A volume (slices, rows, columns) as the bytes of a .nii.gz file, the same at every call."""
    image = nib.Nifti1Image(np.ascontiguousarray(array).transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0)


def slice_centres(excerpt: Excerpt, affine: np.ndarray) -> Iterator[list[float]]:
    """Millimetres (x, y, z) of the middle of each slice; `affine` is that of the input."""
    column = (excerpt.columns.start + excerpt.columns.stop - 1) / 2
    row = (excerpt.rows.start + excerpt.rows.stop - 1) / 2
    for index in excerpt.slices:
        yield (np.asarray(affine) @ [column, row, index, 1.0])[:3].tolist()


def plane_of(affine: np.ndarray) -> str:
    """The anatomical plane that slices lie nearest to: axial, coronal or sagittal."""
    across = np.abs(np.asarray(affine)[:3, 2])
    return ("sagittal", "coronal", "axial")[int(across.argmax())]
