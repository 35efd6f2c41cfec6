"""NIfTI files written slice by slice: nothing ever holds the whole output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike

from data.volumes.geometry import is_sheared
from data.writing.packing import GzipPacking, PlainPacking, SliceStream
from data.writing.partial_file import PartialFile
from util.errors import UserError
from util.files import plain

LARGEST_NIFTI1 = 32767
UNKNOWN, SCANNER = 0, 1  # NIFTI_XFORM_UNKNOWN, NIFTI_XFORM_SCANNER_ANAT
JOURNAL_FORMAT = 2  # to be raised when other bytes are written for the same key
BLOCK_VOXELS = 1 << 18  # converted at a time: stays in the processor's cache, 2.5 times as fast


class NiftiSliceWriter:
    """Context manager that appends slices to a .nii or .nii.gz file.

    The file grows as `NAME.partial` and gets its name when all slices are there. Without a
    `resume_key` nothing stays behind after an error; with one, `NAME.partial` and its journal
    `NAME.partial.journal` do, even after a kill, and a later writer may take them up. The journal
    stays beside the finished file as well: a run of several files, cut off before all are
    finished, resumes all of them. `data.writing.partial_file.forget_journal` ends that.

    Slices are packed and written on threads of the writer's own, in their order. Voxels are
    stored with slope 1 and intercept 0; sform and qform state the same affine (a sheared one, which
    a qform cannot hold, is the sform's alone). Equal input gives equal bytes, with any number
    of threads and wherever the work was interrupted.

    Attributes:
        slices_written: slices accepted so far; on entering the block, those resumed.

    Args:
        path: ends in .nii or .nii.gz; its folder is made where it is missing.
        size: voxels along (x, y, z).
        affine: (4, 4), voxel index (x, y, z) -> mm, RAS+.
        overwrite: whether an existing file is replaced.
        dtype: stored type. Values are rounded and clipped to an integer type's range.
        threads: slices packed at the same time; up to `threads` + 2 are held in memory. One
            thread packs 260 MB/s of int16 CT noise, two 440 MB/s: 13 slices of 4096 x 4096 voxels
            a second.
        resume_key: what besides size, affine and dtype determines the voxels (input, weights,
            options), as `util.files.plain` takes it.
        resume: resume the partial file of an earlier run with an equal key, if there is one.
            Otherwise, or where its bytes are not as its journal says, it is replaced.

    Raises:
        UserError: the file exists already, has another ending, the disk refuses it, or the
            partial file was begun with another key.
        ValueError: `resume` without a key, or fewer than one thread.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int, int],
        affine: np.ndarray,
        overwrite: bool = False,
        dtype: DTypeLike = np.int16,
        threads: int = 2,
        resume_key: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.slices_written = 0
        self._header = _header(size, affine, self.dtype)
        self._threads = threads
        self._resume = resume
        self._resumable = resume_key is not None
        self._stream: SliceStream | None = None
        self._sealed = False
        if resume and not self._resumable:
            raise ValueError(f"{self.path} cannot be resumed without a resume_key")
        if not self.path.name.lower().endswith((".nii", ".nii.gz")):
            raise UserError(f"output {self.path}: give a name that ends in .nii or .nii.gz")
        if self.path.exists() and not overwrite:
            raise UserError(
                f"output {self.path} exists already: give another name, or allow overwriting"
            )
        self._packing = GzipPacking() if self.path.suffix.lower() == ".gz" else PlainPacking()
        key = None
        if resume_key is not None:
            geometry = {"size": size, "affine": affine, "dtype": self.dtype.str}
            key = plain({"format": JOURNAL_FORMAT, **geometry, "run": resume_key})
        self._file = PartialFile(self.path, self._packing, key)

    def __enter__(self) -> NiftiSliceWriter:
        try:
            self._stream = SliceStream(self._packing.pack, self._file.write, self._threads)
            self._file.open(self._header.binaryblock + b"\0\0\0\0", self._resume)
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError):
                raise self._disk_error(error) from error
            raise
        self.slices_written = self._file.slices
        return self

    def append(self, values: np.ndarray) -> None:
        """Take the next slice; returns before it is written, unless too many are waiting.

        Args:
            values: (rows, columns) in physical units (HU); may be changed afterwards.

        Raises:
            UserError: NaN or infinite values, or the disk refused this slice or an earlier one.
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
            self._stream.put(stored.data)
        except OSError as error:
            self._abandon()
            raise self._disk_error(error) from error
        self.slices_written += 1

    def rewind(self, slices: int) -> None:
        """Drop all slices but the first ones: two files of one run go on from the same slice.

        Args:
            slices: how many are kept.

        Raises:
            UserError: the disk refuses.
            ValueError: more than there are, a negative number, or no `resume_key`.
        """
        if not self._resumable:
            raise ValueError(f"{self.path} cannot be rewound without a resume_key")
        if self._stream is None:
            raise ValueError(f"{self.path} is not open: use the writer in a `with` block")
        if not 0 <= slices <= self.slices_written:
            raise ValueError(f"{self.path} holds {self.slices_written} slices, not {slices}")
        try:
            self._stream.drain()
            self._file.rewind(slices)
        except OSError as error:
            self._abandon()
            raise self._disk_error(error) from error
        self.slices_written = slices

    def seal(self) -> None:
        """Bring all slices to the disk; only the name is missing, which leaving the block gives.

        Files that belong together are sealed one after the other before any of them is named.

        Raises:
            UserError: the disk refuses.
            ValueError: slices are missing.
        """
        if self._stream is None:
            raise ValueError(f"{self.path} is not open: use the writer in a `with` block")
        if self.slices_written != self.size[2]:
            raise ValueError(
                f"{self.path} closed after {self.slices_written} of {self.size[2]} slices"
            )
        try:
            self._stream.drain()
            self._file.seal()
        except OSError as error:
            self._abandon()
            raise self._disk_error(error) from error
        self._sealed = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if not self._sealed:
                    self.seal()
                self._file.finish()
        except OSError as failure:
            raise self._disk_error(failure) from failure
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Stop the threads and close the files; does nothing to a finished file."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._file.abandon()

    def _stored(self, values: np.ndarray) -> np.ndarray:
        """A copy of the values in the stored type; numpy rounds halves to even."""
        is_float = values.dtype.kind == "f"
        clipped = self.dtype.kind in "iu" and not np.can_cast(values.dtype, self.dtype)
        stored = np.empty(values.shape, self.dtype)
        step = max(1, BLOCK_VOXELS // values.shape[1])
        for start in range(0, len(values), step):
            block = values[start : start + step]
            if is_float and not np.isfinite(block).all():
                raise UserError(
                    f"slice {self.slices_written} for {self.path} holds NaN or infinite values: "
                    "the weights have diverged, use an earlier checkpoint"
                )
            if clipped:
                limits = np.iinfo(self.dtype)
                block = np.clip(np.rint(block) if is_float else block, limits.min, limits.max)
            stored[start : start + step] = block
        return stored

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
    # A quaternion holds no shear: code 0 says that the qform is none.
    header.set_qform(affine, UNKNOWN if is_sheared(affine) else SCANNER, strip_shears=True)
    header.set_sform(affine, SCANNER)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    return header
