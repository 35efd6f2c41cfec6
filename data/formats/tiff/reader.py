"""TIFF volumes: one multi-page file, or a folder of single-page files.

TIFF states no orientation: rows and columns lie as on the screen (`screen_affine`) with the first
voxel's centre at 0, and ITK-SNAP shows the pages upright. The voxel size is taken from OME-XML,
ImageJ's description or the resolution tags.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.formats.scan_log import logged_spacing
from data.formats.stack_order import order_by_number
from data.formats.tiff.pages import (
    check_pages_in_place,
    decode_page,
    files_of,
    open_tiff,
    stack_series,
    stack_shape,
    value_type,
)
from data.formats.tiff.spacing import Spacing, stated_spacing
from data.formats.tiff.values import Calibration, calibration_of, stored_as_meant
from data.volumes.cache import (
    cached_file,
    decoded_name,
    file_key,
    files_key,
    map_slices,
    write_slices,
)
from data.volumes.checks import check_all_finite
from data.volumes.geometry import screen_affine
from data.volumes.mapping import map_file
from data.volumes.names import PREVIEWS, TIFF_ENDINGS, ending_of, is_mask_name, natural_key
from data.volumes.volume import Volume
from util.errors import UserError

SAME_SIZE = 1e-3  # relative


def tiff_files(folder: Path) -> list[Path]:
    """TIFF files directly inside a folder in natural order, hidden files and masks left out."""
    return sorted(
        (
            path
            for path in folder.iterdir()
            if ending_of(path) in TIFF_ENDINGS
            and not path.name.startswith(".")
            and not is_mask_name(path)
            and not path.stem.lower().endswith(PREVIEWS)
            and path.is_file()
        ),
        key=lambda path: natural_key(path.name),
    )


def read_tiff(path: Path, cache_dir: Path, tiff_spacing: Spacing | None) -> Volume:
    """Read a multi-page TIFF, in place if it is uncompressed and contiguous.

    See `data.formats.readers.read_volume`.
    """
    source = str(path)
    with open_tiff(path) as tiff:
        series = stack_series(tiff, source)
        shape = stack_shape(series, source)
        dtype = value_type(series, tiff.pages.first, source)
        spacing = tiff_spacing or stated_spacing(tiff, shape[0], stack_folder=False)
        calibration = calibration_of(tiff, source)
        in_place = series.dtype == dtype and stored_as_meant(tiff.pages.first)
        offset, byte_order = series.dataoffset, tiff.byteorder
        files = files_of(series, path)
    if offset is None or not in_place:
        key = file_key(path) if files == [path] else files_key(files)
        unpacked = cached_file(
            cache_dir, decoded_name(key), lambda target: _decode_file(path, target)
        )
        return _volume(map_slices(unpacked), source, spacing, calibration)
    check_pages_in_place(path)
    array = map_file(path, dtype.newbyteorder(byte_order), shape, offset, source)
    check_all_finite(array, source)
    return _volume(array, source, spacing, calibration)


def read_tiff_folder(folder: Path, cache_dir: Path, tiff_spacing: Spacing | None) -> Volume:
    """Read a folder of single-page TIFF files, sorted by the number in their names.

    See `data.formats.readers.read_volume`.
    """
    files = order_by_number(tiff_files(folder), folder)
    spacing = tiff_spacing or logged_spacing(folder) or _spacing_of_all(files)
    with open_tiff(files[0]) as tiff:
        calibration = calibration_of(tiff, str(files[0]))
    unpacked = cached_file(
        cache_dir,
        decoded_name(files_key(files)),
        lambda target: _decode_files(files, target, folder),
    )
    return _volume(map_slices(unpacked), str(folder), spacing, calibration)


def _spacing_of_all(files: Sequence[Path]) -> Spacing | None:
    """The voxel size that the files of a stack state, the same wherever one does."""
    stating, first = files[0], None
    for path in files:
        with open_tiff(path) as tiff:
            spacing = stated_spacing(tiff, len(files), stack_folder=True)
        if first is None:
            stating, first = path, spacing
        elif spacing is not None and not np.allclose(spacing, first, rtol=SAME_SIZE, atol=0.0):
            raise UserError(
                f"{path} states voxels of {_in_words(spacing)}, {stating.name} of "
                f"{_in_words(first)}: leave only the slices of one stack in the folder, or give "
                "the size"
            )
    return first


def _in_words(spacing: Spacing) -> str:
    return f"{' x '.join(f'{size:g}' for size in spacing)} mm"


def count_slices(path: Path) -> int:
    """Slices of one TIFF file; a file of a stack folder has one."""
    with open_tiff(path) as tiff:
        return stack_shape(stack_series(tiff, str(path)), str(path))[0]


def files_of_volume(path: Path) -> list[Path]:
    """The files that a TIFF volume lies in; `path` alone where it cannot be read."""
    try:
        with open_tiff(path) as tiff:
            return files_of(stack_series(tiff, str(path)), path)
    except UserError:
        return [path]


def first_page(path: Path) -> np.ndarray:
    """Stored values (rows, columns) of a file's first page."""
    with open_tiff(path) as tiff:
        shape = stack_shape(stack_series(tiff, str(path)), str(path))
        dtype = value_type(tiff.series[0], tiff.pages.first, str(path))
        return decode_page(tiff.pages.first, shape[1:], dtype, path)


def check_tiff_spacing(spacing: Spacing) -> Spacing:
    """Refuse voxel sizes that are not three positive numbers (mm along x, y, z)."""
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise UserError(f"voxel size {spacing} mm: give three positive numbers, x y z in mm")
    return spacing


def _volume(
    array: np.ndarray, source: str, spacing: Spacing | None, calibration: Calibration
) -> Volume:
    affine = screen_affine(spacing or (1.0, 1.0, 1.0))
    slope, intercept = calibration.slope, calibration.intercept
    return Volume(array, affine, source, slope, intercept, spacing_known=spacing is not None)


def _decode_file(path: Path, target: Path) -> None:
    """Decode the pages of one file to the cache, one at a time."""
    source = str(path)
    with open_tiff(path) as tiff:
        series = stack_series(tiff, source)
        shape = stack_shape(series, source)
        dtype = value_type(series, tiff.pages.first, source)
        pages = (decode_page(page, shape[1:], dtype, path) for page in series.pages)
        write_slices(target, pages, shape, dtype, source)


def _decode_files(files: Sequence[Path], target: Path, folder: Path) -> None:
    """Decode the single pages of a stack folder to the cache, one at a time."""
    source = str(folder)
    with open_tiff(files[0]) as tiff:
        series = stack_series(tiff, str(files[0]))
        _, rows, columns = stack_shape(series, str(files[0]))
        dtype = value_type(series, tiff.pages.first, str(files[0]))
        calibration = calibration_of(tiff, str(files[0]))

    def slices() -> Iterator[np.ndarray]:
        for path in files:
            with open_tiff(path) as tiff:
                if stack_shape(stack_series(tiff, str(path)), str(path))[0] != 1:
                    raise UserError(
                        f"{path} holds several pages: a stack folder has one slice per file, "
                        "give a multi-page file by its own name"
                    )
                if calibration_of(tiff, str(path)) != calibration:
                    raise UserError(
                        f"{path} has another calibration of ImageJ than {files[0].name}: apply it "
                        "in ImageJ and save"
                    )
                yield decode_page(tiff.pages.first, (rows, columns), dtype, path)

    write_slices(target, slices(), (len(files), rows, columns), dtype, source)
