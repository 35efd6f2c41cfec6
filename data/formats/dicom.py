"""A DICOM series folder as a volume: decoded once in slice order, then mapped from the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.formats.dicom_headers import SliceHeader, read_pixels, read_slice_headers
from data.formats.dicom_series import order_slices, series_affine, single_series
from data.volumes.cache import cached_file, files_key
from data.volumes.checks import check_affine
from data.volumes.unpack import map_slices, write_slices
from data.volumes.volume import Volume
from util.errors import UserError


def read_dicom_folder(folder: Path, cache_dir: Path) -> Volume:
    """Read the one DICOM series of a folder; see `data.formats.readers.read_volume`.

    Slices come in the order of their positions, whatever their names; rescale slope and
    intercept are applied. Values are kept as int16 where they fit, else int32 or float32.
    """
    source = str(folder)
    headers = single_series(read_slice_headers(folder), folder)
    ordered = order_slices(headers, folder)
    affine, spacing_known = series_affine(ordered)
    affine = check_affine(affine, len(ordered), source)
    key = files_key([header.path for header in ordered])
    unpacked = cached_file(cache_dir, f"{key}.npy", lambda target: _decode(ordered, target, source))
    return Volume(map_slices(unpacked), affine, source, spacing_known=spacing_known)


def single_slice_error(path: Path) -> UserError:
    """What to tell someone who gave one DICOM file where a series is wanted."""
    return UserError(
        f"{path} is one slice of a DICOM series: give its folder, {path.parent}, instead"
    )


def _decode(ordered: Sequence[SliceHeader], target: Path, source: str) -> None:
    """Write all slices with the narrowest type that holds them, int16 for nearly every CT."""
    columns, rows, _ = ordered[0].size
    shape = (len(ordered), rows, columns)
    for dtype in (np.dtype("<i2"), np.dtype("<i4")):
        try:
            write_slices(target, _integers(ordered, dtype), shape, dtype, source)
        except _DoesNotFitError:
            continue
        return
    write_slices(
        target, (read_pixels(header.path) for header in ordered), shape, np.dtype("<f4"), source
    )


class _DoesNotFitError(Exception):
    """A slice holds values outside the integer type tried."""


def _integers(ordered: Sequence[SliceHeader], dtype: np.dtype) -> Iterator[np.ndarray]:
    limits = np.iinfo(dtype)
    for header in ordered:
        pixels = read_pixels(header.path)
        if pixels.dtype.kind == "f" or pixels.min() < limits.min or pixels.max() > limits.max:
            raise _DoesNotFitError
        yield pixels
