"""NIfTI files written slice by slice: nothing ever holds the whole output."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import DTypeLike

from util.errors import UserError

GZIP_LEVEL = 1
LARGEST_NIFTI1 = 32767
SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT


class NiftiSliceWriter:
    """Context manager that appends slices to a .nii or .nii.gz file.

    The file grows as `NAME.partial` and gets its name when all slices are there; after an error
    neither stays behind. Voxels are stored with slope 1 and intercept 0; sform and qform state
    the same affine (the qform its nearest rotation, if the affine is sheared). Equal input gives
    equal bytes.

    Args:
        path: ends in .nii or .nii.gz; its folder is made where it is missing.
        size: voxels along (x, y, z).
        affine: (4, 4), voxel index (x, y, z) -> mm, RAS+.
        overwrite: whether an existing file is replaced.
        dtype: stored type. Values are rounded and clipped to an integer type's range.

    Raises:
        UserError: the file exists already, has another ending, or the disk refuses it.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int, int],
        affine: np.ndarray,
        overwrite: bool = False,
        dtype: DTypeLike = np.int16,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.slices_written = 0
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._header = _header(size, affine, self.dtype)
        self._file: BinaryIO | None = None
        self._stream: BinaryIO | None = None
        if not self.path.name.lower().endswith((".nii", ".nii.gz")):
            raise UserError(f"output {self.path}: give a name that ends in .nii or .nii.gz")
        if self.path.exists() and not overwrite:
            raise UserError(
                f"output {self.path} exists already: give another name, or allow overwriting"
            )

    def __enter__(self) -> NiftiSliceWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._stream = self._partial.open("wb")
            if self.path.name.lower().endswith(".gz"):
                # No name and no time in the gzip header: equal input, equal bytes.
                self._stream = cast(
                    BinaryIO, igzip.IGzipFile("", "wb", GZIP_LEVEL, self._file, mtime=0)
                )
            self._stream.write(self._header.binaryblock + b"\0\0\0\0")
        except OSError as error:
            self._abandon()
            raise self._disk_error(error) from error
        return self

    def append(self, values: np.ndarray) -> None:
        """Write the next slice.

        Args:
            values: (rows, columns) in physical units (HU).

        Raises:
            UserError: NaN or infinite values, or the disk refuses.
            ValueError: another shape, or more slices than promised.
        """
        columns, rows, slices = self.size
        if self._stream is None:
            raise ValueError(f"{self.path} is not open: use the writer in a `with` block")
        if np.shape(values) != (rows, columns) or self.slices_written >= slices:
            raise ValueError(
                f"slice {self.slices_written} of shape {np.shape(values)} for {self.path}, "
                f"expected {slices} slices of {(rows, columns)}"
            )
        stored = self._stored(np.asarray(values))
        try:
            self._stream.write(stored.data)
        except OSError as error:
            self._abandon()
            raise self._disk_error(error) from error
        self.slices_written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        if self.slices_written != self.size[2]:
            self._abandon()
            raise ValueError(
                f"{self.path} closed after {self.slices_written} of {self.size[2]} slices"
            )
        try:
            self._finish()
        except OSError as failure:
            self._abandon()
            raise self._disk_error(failure) from failure

    def _stored(self, values: np.ndarray) -> np.ndarray:
        """Values in the stored type; numpy rounds halves to even."""
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UserError(
                f"slice {self.slices_written} for {self.path} holds NaN or infinite values: "
                "the weights have diverged, use an earlier checkpoint"
            )
        if self.dtype.kind in "iu" and not np.can_cast(values.dtype, self.dtype):
            limits = np.iinfo(self.dtype)
            rounded = np.rint(values) if values.dtype.kind == "f" else values
            values = np.clip(rounded, limits.min, limits.max)
        return np.ascontiguousarray(values.astype(self.dtype, copy=False))

    def _finish(self) -> None:
        file, stream = self._file, self._stream
        if file is None or stream is None:
            raise ValueError(f"{self.path} is not open")
        if stream is not file:
            stream.close()  # writes the end of the gzip stream; `file` stays open
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._partial.replace(self.path)
        self._file = self._stream = None

    def _abandon(self) -> None:
        """Close without finishing and remove what was written."""
        file, stream = self._file, self._stream
        self._file = self._stream = None
        for opened in (stream, file):
            if opened is not None:
                try:
                    opened.close()
                except OSError:  # a full disk refuses the last bytes too; they are not wanted
                    continue
        if file is not None:
            self._partial.unlink(missing_ok=True)

    def _disk_error(self, error: OSError) -> UserError:
        return UserError(
            f"output {self.path} cannot be written ({error.strerror or error}): "
            "give a folder that can be written and has room"
        )


def write_volume(
    path: str | Path,
    array: np.ndarray,
    affine: np.ndarray,
    overwrite: bool = False,
    dtype: DTypeLike = np.int16,
) -> None:
    """Write a whole volume (slices, rows, columns) in physical units; see `NiftiSliceWriter`."""
    slices, rows, columns = array.shape
    with NiftiSliceWriter(path, (columns, rows, slices), affine, overwrite, dtype) as writer:
        for values in array:
            writer.append(values)


def _header(size: tuple[int, int, int], affine: np.ndarray, dtype: np.dtype) -> nib.Nifti1Header:
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"size {size}: expected three positive numbers (x, y, z)")
    kind = nib.Nifti2Header if max(size) > LARGEST_NIFTI1 else nib.Nifti1Header
    header = kind(endianness="<")
    header.set_data_shape(size)
    header.set_data_dtype(dtype)
    header.set_qform(affine, SCANNER, strip_shears=True)
    header.set_sform(affine, SCANNER)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    return header
