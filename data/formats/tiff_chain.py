"""A TIFF file's chain of pages, walked tag by tag before tifffile reads it.

tifffile reads what is left of a file that was cut off, and decodes a page of another size in the
middle of a stack as if it were like the first: both would give a wrong volume without a word.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Literal

from util.errors import UserError

MOST_TAGS = 4096
TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes per value of the TIFF tag types that take more than one (TIFF 6.0, section 2; BigTIFF)."""
WIDTH, LENGTH, BITS, SAMPLES, SAMPLE_FORMAT = 256, 257, 258, 277, 339
DEFAULTS = {BITS: 1, SAMPLES: 1, SAMPLE_FORMAT: 1}

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
        size = count * TYPE_BYTES.get(kind, 1)
        if size > len(field):
            if int.from_bytes(field, byte_order) + size > length:
                raise ValueError("a tag's value lies beyond the end of the file: truncated")
        elif count == 1:
            values[tag] = int.from_bytes(field[:size], byte_order)
    following = _number(order + ("Q" if big else "I"), stream.read(8 if big else 4))
    kinds = (WIDTH, LENGTH, BITS, SAMPLES, SAMPLE_FORMAT)
    return following, tuple(values.get(tag, 0) for tag in kinds)


def _shown(kind: PageKind) -> str:
    width, length, bits, _, sample_format = kind
    return f"{length}x{width} of {bits} bit, sample format {sample_format}"


def _number(form: str, block: bytes) -> int:
    number: int = struct.unpack(form, block)[0]
    return number
