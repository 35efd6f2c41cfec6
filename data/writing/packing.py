"""How the bytes of a growing file are stored: as they are, or as one gzip member in pieces.

A gzip member made of independent pieces (pigz does the same) can be packed by several threads and
resumed after any piece, and its bytes depend on neither. Readers see a plain .gz file.
`SliceStream` packs pieces on a few threads and writes them in their order, in bounded memory.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from isal import isal_zlib

GZIP_LEVEL = 1
RAW_DEFLATE = -15  # window bits: 32 KiB history, without a header or trailer of its own
# RFC 1952: magic, deflate, no flags, no time, fastest method, unknown system.
GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x04\xff"
LAST_BLOCK = b"\x03\x00"  # an empty final block of fixed codes, RFC 1951 section 3.2.6


@dataclass(frozen=True)
class Piece:
    """A stretch of a file, ready to be written."""

    content: bytes | memoryview  # the bytes as stored
    raw_bytes: int  # length before packing
    raw_crc: int  # CRC-32 of the bytes before packing


class Packing(Protocol):
    """Turns raw bytes into a file: `start`, any number of pieces, the end."""

    start: bytes

    def pack(self, raw: memoryview) -> Piece:
        """Pack one piece without knowing those before it; safe to call from any thread."""

    def end(self, raw_bytes: int, raw_crc: int) -> bytes:
        """What follows the last piece, given length and CRC-32 of all raw bytes."""


class PlainPacking:
    """Stores bytes as they are."""

    start = b""

    def pack(self, raw: memoryview) -> Piece:
        """The bytes themselves, without a copy."""
        return Piece(raw, raw.nbytes, isal_zlib.crc32(raw))

    def end(self, raw_bytes: int, raw_crc: int) -> bytes:
        """Nothing."""
        return b""


class GzipPacking:
    """One gzip member (RFC 1952): some readers stop after the first, so there is no second.

    Each piece is a deflate stream of its own that a full flush ends at a byte border, so pieces
    may stand one after the other. The fastest level is used: CT noise hardly shrinks any further.
    """

    start = GZIP_HEADER

    def pack(self, raw: memoryview) -> Piece:
        """Deflate one piece; isal gives Python's lock away meanwhile."""
        deflater = isal_zlib.compressobj(level=GZIP_LEVEL, wbits=RAW_DEFLATE)
        content = deflater.compress(raw) + deflater.flush(isal_zlib.Z_FULL_FLUSH)
        return Piece(content, raw.nbytes, isal_zlib.crc32(raw))

    def end(self, raw_bytes: int, raw_crc: int) -> bytes:
        """Empty last block, CRC-32, and length modulo 2^32."""
        return LAST_BLOCK + struct.pack("<II", raw_crc, raw_bytes & 0xFFFFFFFF)


class SliceStream:
    """Packs raw pieces on `threads` threads and writes them on one more, first in, first out.

    Once a piece could not be packed or written, no later one is: the file has no gaps.

    Args:
        pack: called on any thread, for several pieces at once.
        write: called on one thread, for one piece after the other.
        threads: how many pieces are packed at the same time.

    Raises:
        ValueError: fewer than one thread.
    """

    def __init__(
        self, pack: Callable[[memoryview], Piece], write: Callable[[Piece], None], threads: int
    ) -> None:
        if threads < 1:
            raise ValueError(f"{threads} threads: expected at least one")
        self._pack = pack
        self._write = write
        # One piece for each packing thread and one in the writer's hands keep all of them busy.
        self._capacity = threads + 1
        self._waiting: deque[Future[None]] = deque()
        self._error: BaseException | None = None
        self._packers = ThreadPoolExecutor(threads, thread_name_prefix="pack")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def put(self, raw: memoryview) -> None:
        """Hand over the next piece; blocks while more than `threads` + 1 are not yet written.

        Args:
            raw: must not change afterwards.

        Raises:
            Exception: what `pack` or `write` raised for this piece or one before it.
        """
        packed = self._packers.submit(self._pack, raw)
        self._waiting.append(self._writer.submit(self._write_next, packed))
        while self._waiting and (len(self._waiting) > self._capacity or self._waiting[0].done()):
            self._waiting.popleft().result()

    def drain(self) -> None:
        """Wait until all pieces are written; raises like `put`."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Stop the threads once the pieces put so far are written or refused; raises nothing."""
        self._waiting.clear()
        self._packers.shutdown()
        self._writer.shutdown()

    def _write_next(self, packed: Future[Piece]) -> None:
        if self._error is not None:
            raise self._error
        try:
            self._write(packed.result())
        except BaseException as error:
            self._error = error
            raise
