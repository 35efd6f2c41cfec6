"""The pages of a TIFF file: a whole chain, one grey image stack, decoded page by page.

The chain is walked tag by tag before tifffile reads it: tifffile reads what is left of a file that
was cut off, and decodes a page of another size in the middle of a stack as if it were like the
first. Both would give a wrong volume without a word.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import tifffile

from data.formats.tiff.values import check_page_tags, grey_values, has_palette
from data.volumes.checks import check_voxel_type, volume_shape
from util.errors import UserError, reason_of

# tifffile logs what it finds odd; without a handler that would land in the middle of a progress
# bar. What matters is raised as UserError.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

MOST_TAGS = 4096
TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes per value of the TIFF tag types that take more than one (TIFF 6.0, section 2; BigTIFF)."""
WIDTH, LENGTH, BITS, SAMPLES, SAMPLE_FORMAT = 256, 257, 258, 277, 339
PHOTOMETRIC, ORIENTATION = 262, 274
UNCOMPRESSED = 1
# Tags without which pixels would be read as others, and the types that they may have.
NEEDED = {*range(256, 260), 262, 273, 277, 278, 279, 322, 323, 324, 325}
INTEGERS = (1, 3, 4, 6, 8, 9, 13, 16, 17, 18)
DEFAULTS = {BITS: 1, SAMPLES: 1, SAMPLE_FORMAT: 1, PHOTOMETRIC: 1, ORIENTATION: 1}

PageKind = tuple[int, ...]


def check_page_chain(path: Path) -> None:
    """Refuse a file whose pages are not all there, or not all of one size and type.

    Raises:
        ValueError: no TIFF, or the chain or a tag's value ends beyond the file.
        UserError: pages of different sizes or types.
    """
    length = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        if order is None or len(start) < 8:
            raise ValueError("no TIFF header")
        big = start[2:4] in (b"+\0", b"\0+")
        offset = _number(order + ("Q" if big else "I"), start[8:16] if big else start[4:8])
        seen: set[int] = set()
        first: PageKind | None = None
        while offset:
            if offset in seen or offset >= length:
                raise ValueError(f"page {len(seen)} lies beyond the end of the file: truncated")
            seen.add(offset)
            offset, kind = _read_page(stream, offset, order, big, length)
            first = first or kind
            if kind != first:
                raise UserError(
                    f"{path} holds pages of different shapes or types (the first {_shown(first)}, "
                    f"page {len(seen) - 1} {_shown(kind)}): save slices of one size and type"
                )


def _read_page(
    stream: BinaryIO, offset: int, order: str, big: bool, length: int
) -> tuple[int, PageKind]:
    """Offset of the page behind the one at `offset` (0 behind the last), and the page's kind."""
    stream.seek(offset)
    tags = _number(order + ("Q" if big else "H"), stream.read(8 if big else 2))
    if tags > MOST_TAGS:
        raise ValueError(f"a page with {tags} tags: damaged")
    entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    values = dict(DEFAULTS)
    byte_order: Literal["little", "big"] = "little" if order == "<" else "big"
    for tag, kind, count, field in entry.iter_unpack(stream.read(tags * entry.size)):
        if tag in NEEDED and kind not in INTEGERS:  # tifffile would take what is usual instead
            raise ValueError(f"tag {tag} has the type {kind}, expected an integer: damaged")
        size = count * TYPE_BYTES.get(kind, 1)
        if size > len(field):
            if int.from_bytes(field, byte_order) + size > length:
                raise ValueError("a tag's value lies beyond the end of the file: truncated")
        elif count == 1:
            values[tag] = int.from_bytes(field[:size], byte_order)
    following = _number(order + ("Q" if big else "I"), stream.read(8 if big else 4))
    kinds = (WIDTH, LENGTH, BITS, SAMPLES, SAMPLE_FORMAT, PHOTOMETRIC, ORIENTATION)
    return following, tuple(values.get(tag, 0) for tag in kinds)


def _shown(kind: PageKind) -> str:
    width, length, bits, _, sample_format, photometric, orientation = kind
    return (
        f"{length}x{width} of {bits} bit, sample format {sample_format}, photometric "
        f"{photometric}, orientation {orientation}"
    )


def _number(form: str, block: bytes) -> int:
    number: int = struct.unpack(form, block)[0]
    return number


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
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # of damaged files tifffile and its decoders raise any type
        raise UserError(
            f"{path} cannot be read as TIFF ({reason_of(error)}): copy or export it again"
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
    for further in files_of(series, Path(source))[1:]:
        check_page_chain(further)
    check_page_tags(tiff.pages.first, Path(source))
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


def files_of(series: tifffile.TiffPageSeries, path: Path) -> list[Path]:
    """The files that a series' pages lie in: `path`, and of a multi-file OME-TIFF the others."""
    if not series.is_multifile:
        return [path]
    found = {Path(page.parent.filehandle.path) for page in series.pages if page is not None}
    return [path, *sorted(one for one in found if not one.samefile(path))]


def value_type(series: tifffile.TiffPageSeries, first: tifffile.TiffPage, source: str) -> np.dtype:
    """Type of a stack's grey values; those of a palette have 8 bits."""
    return grey_type(np.dtype(np.uint8) if has_palette(first) else series.dtype, source)


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
    with _opened(page.parent.filehandle):
        # A frame would be decoded with the first page's shape and type, whatever its own.
        if isinstance(page, tifffile.TiffFrame):
            page = page.aspage()
        check_page_bytes(page, Path(page.parent.filehandle.path))
        check_page_tags(page, path)
        pixels = grey_values(page.asarray(), page)
    found = grey_type(pixels.dtype, str(path))
    if pixels.shape != shape or found != dtype:
        raise UserError(
            f"{path} has a page of {'x'.join(map(str, pixels.shape))} {found}, the stack's first "
            f"has {shape[0]}x{shape[1]} {dtype}: save slices of one size and type"
        )
    return pixels


@contextmanager
def _opened(handle: tifffile.FileHandle) -> Iterator[None]:
    """Open the further files of a multi-file OME-TIFF while they are read."""
    closed = handle.closed
    if closed:
        handle.open()
    try:
        yield
    finally:
        if closed:
            handle.close()


def check_page_bytes(page: tifffile.TiffPage, path: Path) -> None:
    """Refuse a page some of whose pixels are not there: tifffile would make them black.

    Raises:
        UserError: strips or tiles beyond the end of the file, empty, or too short.
    """
    places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if max((offset + count for offset, count in places), default=0) > path.stat().st_size:
        raise UserError(f"{path} is truncated, pixels lie beyond its end: copy or export it again")
    there = sum(page.databytecounts)
    promised = -(-math.prod(page.shape) * page.bitspersample // 8)
    too_few = page.compression == UNCOMPRESSED and there < promised
    if not places or 0 in page.databytecounts or 0 in page.dataoffsets or too_few:
        raise UserError(
            f"{path} lacks pixels: a page has {there} bytes in {len(places)} strips, its header "
            f"promises {promised} unpacked: export it again"
        )


def check_pages_in_place(path: Path) -> None:
    """`check_page_bytes` for every page of a file whose pixels are read where they lie."""
    with open_tiff(path) as tiff:
        for page in tiff.pages:
            check_page_bytes(page.aspage() if isinstance(page, tifffile.TiffFrame) else page, path)


def _distinct(axes: str) -> bool:
    return len(set(axes)) == len(axes)
