"""The pages of a TIFF file: a whole chain, one grey image stack, decoded page by page."""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from data.formats.tiff_chain import check_page_chain
from data.volumes.checks import check_voxel_type, volume_shape
from util.errors import UserError

# tifffile logs what it finds odd; without a handler that would land in the middle of a progress
# bar. What matters is raised as UserError.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

DECODING_ERRORS = (
    tifffile.TiffFileError,
    ValueError,
    RuntimeError,  # imagecodecs' errors
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
)


@contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file whose chain of pages is whole.

    Raises:
        UserError: no TIFF, cut off, or damaged; also for such errors inside the `with` block.
    """
    try:
        check_page_chain(path)
        with tifffile.TiffFile(path) as tiff:
            yield tiff
    except DECODING_ERRORS as error:
        raise UserError(
            f"{path} cannot be read as TIFF ({error}): copy or export it again"
        ) from error


def stack_series(tiff: tifffile.TiffFile, source: str) -> tifffile.TiffPageSeries:
    """The one stack of grey pages that a TIFF file holds.

    A lone axis of pages is taken as slices whatever its name, because many programs write z
    stacks as "time" or "channels".

    Raises:
        UserError: pages of several shapes or types, RGB, several channels or time points.
    """
    if len(tiff.series) != 1:
        shown = ", ".join(
            f"{'x'.join(map(str, series.shape))} {series.dtype}" for series in tiff.series[:4]
        )
        raise UserError(
            f"{source} holds pages of different shapes or types ({shown}): "
            "save slices of one size and type"
        )
    series = tiff.series[0]
    if series.is_multifile:
        raise UserError(f"{source} refers to further files: save the stack as one file")
    if tiff.pages.first.samplesperpixel != 1:
        raise UserError(f"{source} is an RGB or multi-component image: save it in grey")
    promised = (tiff.imagej_metadata or {}).get("images", 1) if tiff.is_imagej else 1
    found = math.prod(series.shape[:-2])
    if found < promised:
        raise UserError(
            f"{source} is truncated: it holds {found} of the {promised} slices that ImageJ wrote: "
            "copy or export it again"
        )
    return series


def stack_shape(series: tifffile.TiffPageSeries, source: str) -> tuple[int, int, int]:
    """(slices, rows, columns) of a series; refuses more than one axis of pages."""
    sizes = dict(zip(series.axes, series.shape, strict=True)) if _distinct(series.axes) else {}
    if series.kind == "ome" and sizes.get("C", 1) > 1:
        raise UserError(f"{source} has {sizes['C']} channels: save one channel")
    *pages, rows, columns = series.shape
    if series.axes[-2:] != "YX":
        raise UserError(f"{source} has axes {series.axes}: save its pages as images of rows")
    stacked = [size for size in pages if size != 1] or [1]
    return volume_shape((columns, rows, *stacked), source)


def grey_type(dtype: np.dtype | None, source: str) -> np.dtype:
    """Type in which decoded pages are kept, native byte order; black-and-white becomes uint8."""
    if dtype is None:
        raise UserError(f"{source} has no readable pixel type: export it again")
    kept = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    check_voxel_type(kept, source)
    return kept


def decode_page(
    page: tifffile.TiffPage | tifffile.TiffFrame | None,
    shape: tuple[int, int],
    dtype: np.dtype,
    path: Path,
) -> np.ndarray:
    """Decode one page, which must have the stack's (rows, columns) and type.

    Raises:
        UserError: another shape or type, or pixels beyond the end of the file.
    """
    if page is None:
        raise UserError(f"{path} lacks a page that its metadata promise: export it again")
    end = max(
        (
            offset + count
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ),
        default=0,
    )
    if end > path.stat().st_size:
        raise UserError(f"{path} is truncated, pixels lie beyond its end: copy or export it again")
    # A frame would be decoded with the first page's shape and type, whatever its own.
    if isinstance(page, tifffile.TiffFrame):
        page = page.aspage()
    pixels = page.asarray()
    found = grey_type(pixels.dtype, str(path))
    if pixels.shape != shape or found != dtype:
        raise UserError(
            f"{path} has a page of {'x'.join(map(str, pixels.shape))} {found}, the stack's first "
            f"has {shape[0]}x{shape[1]} {dtype}: save slices of one size and type"
        )
    return pixels


def _distinct(axes: str) -> bool:
    return len(set(axes)) == len(axes)
