"""A volume: voxels on disk with their geometry, read slice by slice or patch by patch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from data.volumes.mapping import (
    FAULT_AROUND,
    MappedRegion,
    map_region,
    mapped_region,
    release_pages,
)
from data.volumes.names import case_name
from util.errors import UserError
from util.file_names import presentable
from util.privacy import cleared

MOST_MAPPED = 1 << 26  # bytes of a mapped file at once
LARGE_BYTES = 1 << 32  # a volume of more is sampled where it would otherwise be read whole


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their place in the patient.

    Pickling a volume whose voxels are memory-mapped hands over the file's name, not the voxels,
    so that loader workers share one copy.
    """

    # (slices, rows, columns) = (z, y, x) in the stored type, memory-mapped where it came from a
    # file. A `ZarrVoxels` stands in for it where voxels come from a Zarr store.
    array: np.ndarray
    affine: np.ndarray  # (4, 4) float64, voxel index (x, y, z) -> millimetres, RAS+ as in NIfTI
    source: str  # path as the user knows it
    # slope, intercept: physical value (HU) = stored * slope + intercept
    slope: float = 1.0
    intercept: float = 0.0
    spacing_known: bool = True  # False where the file states no voxel size and 1 mm was assumed
    # the volume that `select_slices` took these slices from; None for a whole volume
    whole: Volume | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or np.shape(self.affine) != (4, 4):
            raise ValueError(
                f"array of shape {self.array.shape} and affine of shape {np.shape(self.affine)}: "
                "a volume has a (z, y, x) array and a (4, 4) affine"
            )
        object.__setattr__(self, "affine", np.array(self.affine, dtype=np.float64))

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along (x, y, z)."""
        slices, rows, columns = self.array.shape
        return columns, rows, slices

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (x, y, z) in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def num_slices(self) -> int:
        """Number of axial slices."""
        return int(self.array.shape[0])

    @property
    def name(self) -> str:
        """Case name: the source's file or folder name without its format's ending."""
        return case_name(self.source)

    @property
    def title(self) -> str:
        """Case name for pages and pictures, without what identifies the patient."""
        return presentable(str(cleared(f"/{self.name}"))[1:])  # as in a path

    @property
    def printed_name(self) -> str:
        """Case name for the terminal of whoever has the file."""
        return presentable(self.name)

    def read_slice(self, index: int) -> np.ndarray:
        """One slice in physical units, float32 (rows, columns); a negative index counts back."""
        return self._physical(self.array[index])

    def read_patch(self, index: int, row: int, column: int, height: int, width: int) -> np.ndarray:
        """A patch of slice `index`, top left pixel (row, column): float32 (height, width).

        Raises:
            IndexError: the patch reaches over the slice's border (it is never cut short).
        """
        _, rows, columns = self.array.shape
        if not (0 <= row <= row + height <= rows and 0 <= column <= column + width <= columns):
            raise IndexError(
                f"patch of {height} x {width} at ({row}, {column}) of a {rows} x {columns} slice"
            )
        return self._physical(self.array[index, row : row + height, column : column + width])

    def select_slices(self, start: int, stop: int) -> Volume:
        """Slices start <= index < stop as a view of the same voxels, at the same place in mm.

        Raises:
            IndexError: the range is empty or reaches out of the volume.
        """
        if not 0 <= start < stop <= self.num_slices:
            raise IndexError(f"slices {start}:{stop} of a volume of {self.num_slices}")
        affine = self.affine.copy()
        affine[:, 3] = self.affine @ (0.0, 0.0, float(start), 1.0)
        whole = self.whole or self
        return replace(self, array=self.array[start:stop], affine=affine, whole=whole)

    def turned(self, axis: str) -> Volume:
        """The same voxels with slices across another axis: "z" as they are, "y" or "x".

        Slices along y have (z, x) as rows and columns, slices along x have (z, y). A view: nothing
        is copied.
        """
        if axis == "z":
            return self
        order = {"y": (1, 0, 2), "x": (2, 0, 1)}[axis]
        # Columns of the affine stand for x, y, z: the array's axes backwards.
        columns = [2 - order[2], 2 - order[1], 2 - order[0], 3]
        turned = self.array.transpose(order)
        whole = None if self.whole is None else self.whole.turned(axis)
        return replace(self, array=turned, affine=self.affine[:, columns], whole=whole)

    def slice_digests(self) -> list[str]:
        """A short fingerprint per slice, to find slices that were trained on.

        Returns:
            One word of 16 hex digits per slice: blake2b of the slice's shape and its float32
            physical values, so that the same voxels in another format give the same word. ""
            for a constant slice, which identifies nobody.
        """
        return [slice_digest(self.read_slice(index)) for index in range(self.num_slices)]

    def _physical(self, stored: np.ndarray) -> np.ndarray:
        """Float32 copy in physical units."""
        values = np.empty(stored.shape, dtype=np.float32)
        rows = rows_at_once(stored)
        for first in range(0, len(stored), rows):
            band = stored[first : first + rows]
            values[first : first + rows] = in_physical_units(band, self.slope, self.intercept)
            release_pages(band)
        return values

    def __reduce__(self) -> tuple[object, ...]:
        voxels = mapped_region(self.array)
        rest = (
            self.affine, self.source, self.slope, self.intercept, self.spacing_known, self.whole
        )  # fmt: skip
        return _restore, (self.array if voxels is None else voxels, *rest)


def in_physical_units(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Stored values (rows, columns) times slope plus intercept, float32; scaling runs in float64
    and rounds once."""
    if slope == 1.0 and intercept == 0.0:
        return stored.astype(np.float32)
    scaled = np.array(stored, dtype=np.float64)
    scaled *= slope
    scaled += intercept
    return scaled.astype(np.float32)


def rows_at_once(stored: np.ndarray) -> int:
    """Rows of a slice to read before its pages are let go.

    Across x or y each voxel of a mapped file may lie on a page of its own, and the system maps
    the neighbours of each as well: a slice would look as large as the volume.
    """
    rows, columns = stored.shape
    span = columns * abs(stored.strides[1])
    cost = min(abs(stored.strides[0]), max(span, FAULT_AROUND)) or 1
    return max(1, min(rows, MOST_MAPPED // cost))


def _restore(voxels: np.ndarray | MappedRegion, *rest: object) -> Volume:
    """Unpickle a volume, mapping its voxels again where it was mapped before."""
    array = map_region(voxels) if isinstance(voxels, MappedRegion) else voxels
    return Volume(array, *rest)  # type: ignore[arg-type]


def slice_digest(values: np.ndarray) -> str:
    """Fingerprint of one slice (rows, columns) of physical values; see `Volume.slice_digests`."""
    pixels = np.ascontiguousarray(values, dtype="<f4")
    if pixels.size == 0 or pixels.min() == pixels.max():
        return ""
    # Adding zero turns -0.0, which some formats lose, into 0.0.
    digest = blake2b(f"{pixels.shape[0]}x{pixels.shape[1]}".encode(), digest_size=8)
    digest.update((pixels + np.float32(0.0)).data)
    return digest.hexdigest()


def parse_slices(text: str, count: int) -> tuple[int, int]:
    """Read a slice range "START:STOP" as Python does: negative from the end, sides optional.

    Args:
        text: for example "10:20", ":5", "-3:", ":".
        count: number of slices of the volume.

    Returns:
        (start, stop) with 0 <= start < stop <= count.

    Raises:
        UserError: not of this form, or no slice is left.
    """
    match = re.fullmatch(r"\s*(-?[0-9]+)?\s*:\s*(-?[0-9]+)?\s*", text)
    if match is None:
        raise UserError(
            f'slice range "{text}" is not of the form START:STOP: give for example 10:20 or -5:'
        )
    first, last = (None if side is None else int(side) for side in match.groups())
    start, stop, _ = slice(first, last).indices(count)
    if start >= stop:
        raise UserError(
            f'slice range "{text}" holds no slice of a volume of {count}: '
            f"give START < STOP within 0:{count}"
        )
    return start, stop
