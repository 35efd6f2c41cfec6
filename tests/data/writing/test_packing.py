"""Packings: independent pieces that make one gzip member, or the bytes as they are."""

from __future__ import annotations

import gzip
import random
import struct
import zlib

import pytest

from data.writing.packing import GzipPacking, Packing, PlainPacking

PIECES = [b"header", bytes(70_000), random.Random(0).randbytes(70_000), b"", b"CT" * 9]


def whole_file(packing: Packing, pieces: list[bytes]) -> bytes:
    raw = b"".join(pieces)
    packed = [bytes(packing.pack(memoryview(piece)).content) for piece in pieces]
    return packing.start + b"".join(packed) + packing.end(len(raw), zlib.crc32(raw))


@pytest.mark.parametrize("count", range(len(PIECES) + 1))
def test_gzip_pieces_make_one_member(count: int) -> None:
    packed = whole_file(GzipPacking(), PIECES[:count])
    raw = b"".join(PIECES[:count])
    assert gzip.decompress(packed) == raw
    member = zlib.decompressobj(wbits=31)
    assert member.decompress(packed) == raw
    assert (member.eof, member.unused_data) == (True, b"")
    assert packed[3:8] == bytes(5), "a name or a time would make equal input unequal bytes"


def test_gzip_pieces_know_nothing_of_each_other() -> None:
    packing = GzipPacking()
    for raw in PIECES:
        piece = packing.pack(memoryview(raw))
        assert piece == packing.pack(memoryview(raw))
        assert (piece.raw_bytes, piece.raw_crc) == (len(raw), zlib.crc32(raw))
        alone = zlib.decompressobj(wbits=-15)
        assert alone.decompress(piece.content) == raw
        assert not alone.eof, "only the end of the file may hold a last block"


def test_gzip_states_the_length_modulo_4_gib() -> None:
    assert GzipPacking().end((1 << 32) + 5, 0x89ABCDEF)[-8:] == struct.pack("<II", 0x89ABCDEF, 5)


def test_plain_pieces_are_the_bytes_themselves() -> None:
    assert whole_file(PlainPacking(), PIECES) == b"".join(PIECES)
    piece = PlainPacking().pack(memoryview(b"abc"))
    assert (piece.raw_bytes, piece.raw_crc) == (3, zlib.crc32(b"abc"))
