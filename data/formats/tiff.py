"""TIFF volumes: one multi-page file, or a folder of single-page files.

TIFF states no orientation. Rows run from anterior to posterior and columns from the patient's
right to left, as in an axial CT slice on the screen and as ITK reads TIFF: the RAS+ affine is
diag(-x, -y, z) with the first voxel's centre at 0, and ITK-SNAP shows the pages upright.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.formats.tiff_pages import decode_page, grey_type, open_tiff, stack_series, stack_shape
from data.formats.tiff_spacing import Spacing, stated_spacing
from data.formats.tiff_stack import order_by_number, tiff_files
from data.volumes.cache import cached_file, file_key, files_key
from data.volumes.checks import check_all_finite
from data.volumes.mapping import map_file
from data.volumes.unpack import map_slices, write_slices
from data.volumes.volume import Volume
from util.errors import UserError


def read_tiff(path: Path, cache_dir: Path, tiff_spacing: Spacing | None) -> Volume:
    """Read a multi-page TIFF, in place if it is uncompressed and contiguous.

    See `data.formats.readers.read_volume`.
    """
    source = str(path)
    with open_tiff(path) as tiff:
        series = stack_series(tiff, source)
        shape = stack_shape(series, source)
        dtype = grey_type(series.dtype, source)
        spacing = tiff_spacing or stated_spacing(tiff, shape[0], stack_folder=False)
        offset, byte_order = series.dataoffset, tiff.byteorder
    if offset is None or series.dtype != dtype:
        unpacked = cached_file(
            cache_dir, f"{file_key(path)}.npy", lambda target: _decode_file(path, target)
        )
        return _volume(map_slices(unpacked), source, spacing)
    array = map_file(path, dtype.newbyteorder(byte_order), shape, offset, source)
    check_all_finite(array, source)
    return _volume(array, source, spacing)


def read_tiff_folder(folder: Path, cache_dir: Path, tiff_spacing: Spacing | None) -> Volume:
    """Read a folder of single-page TIFF files, sorted by the number in their names.

    See `data.formats.readers.read_volume`.
    """
    files = order_by_number(tiff_files(folder), folder)
    with open_tiff(files[0]) as tiff:
        spacing = tiff_spacing or stated_spacing(tiff, len(files), stack_folder=True)
    unpacked = cached_file(
        cache_dir, f"{files_key(files)}.npy", lambda target: _decode_files(files, target, folder)
    )
    return _volume(map_slices(unpacked), str(folder), spacing)


def count_slices(path: Path) -> int:
    """Slices of one TIFF file; a file of a stack folder has one."""
    with open_tiff(path) as tiff:
        return stack_shape(stack_series(tiff, str(path)), str(path))[0]


def check_tiff_spacing(spacing: Spacing) -> Spacing:
    """Refuse voxel sizes that are not three positive numbers (mm along x, y, z)."""
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise UserError(f"TIFF spacing {spacing} mm: give three positive numbers, x y z in mm")
    return spacing


def _volume(array: np.ndarray, source: str, spacing: Spacing | None) -> Volume:
    x, y, z = spacing or (1.0, 1.0, 1.0)
    affine = np.diag([-x, -y, z, 1.0])
    return Volume(array, affine, source, spacing_known=spacing is not None)


def _decode_file(path: Path, target: Path) -> None:
    """Decode the pages of one file to the cache, one at a time."""
    source = str(path)
    with open_tiff(path) as tiff:
        series = stack_series(tiff, source)
        shape = stack_shape(series, source)
        dtype = grey_type(series.dtype, source)
        pages = (decode_page(page, shape[1:], dtype, path) for page in series.pages)
        write_slices(target, pages, shape, dtype, source)


def _decode_files(files: Sequence[Path], target: Path, folder: Path) -> None:
    """Decode the single pages of a stack folder to the cache, one at a time."""
    source = str(folder)
    with open_tiff(files[0]) as tiff:
        series = stack_series(tiff, str(files[0]))
        _, rows, columns = stack_shape(series, str(files[0]))
        dtype = grey_type(series.dtype, str(files[0]))

    def slices() -> Iterator[np.ndarray]:
        for path in files:
            with open_tiff(path) as tiff:
                if stack_shape(stack_series(tiff, str(path)), str(path))[0] != 1:
                    raise UserError(
                        f"{path} holds several pages: a stack folder has one slice per file, "
                        "give a multi-page file by its own name"
                    )
                yield decode_page(tiff.pages.first, (rows, columns), dtype, path)

    write_slices(target, slices(), (len(files), rows, columns), dtype, source)
