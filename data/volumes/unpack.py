"""Streams of voxels written to cache files in constant memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import igzip, igzip_lib

from data.volumes.checks import check_finite
from util.errors import UserError

BLOCK_BYTES = 1 << 20
ANY_HEADER = 47  # window bits that accept both a zlib and a gzip header


def gzip_blocks(stream: BinaryIO, source: str) -> Iterator[bytes]:
    """Unpacked bytes of a gzip stream (of one member or several), checked to its very end.

    Raises:
        UserError: not gzip, broken, or cut off.
    """
    try:
        with igzip.IGzipFile(fileobj=stream, mode="rb") as unpacked:
            while block := unpacked.read(BLOCK_BYTES):
                yield block
    except EOFError as error:
        raise _truncated(source) from error
    except (igzip.BadGzipFile, igzip_lib.IsalError) as error:  # type: ignore[misc]  # wrong stub
        raise _broken(source, error) from error


def zlib_blocks(stream: BinaryIO, source: str) -> Iterator[bytes]:
    """Unpacked bytes of a zlib stream; raises like `gzip_blocks`."""
    inflater = zlib.decompressobj(ANY_HEADER)
    while not inflater.eof:
        packed = inflater.unconsumed_tail or stream.read(BLOCK_BYTES)
        try:
            block = inflater.decompress(packed, BLOCK_BYTES)
        except zlib.error as error:
            raise _broken(source, error) from error
        if not packed and not block:
            raise _truncated(source)
        yield block


def write_blocks(target: Path, blocks: Iterable[bytes], promised: int, source: str) -> None:
    """Write unpacked bytes to a file, dropping what comes after the promised ones.

    Raises:
        UserError: fewer bytes came than the header promises.
    """
    written = 0
    with target.open("wb") as out:
        for block in blocks:
            kept = block[: promised - written]
            out.write(kept)
            written += len(kept)
    if written < promised:
        raise UserError(
            f"{source} is truncated: it unpacks to {written} bytes, its header promises "
            f"{promised}: copy or export it again"
        )


def write_slices(
    target: Path,
    slices: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype,
    source: str,
) -> None:
    """Write decoded slices (rows, columns) one after the other as an .npy file of that shape.

    Raises:
        UserError: NaN or infinite voxels.
    """
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with target.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for index, values in enumerate(slices):
            check_finite(values, index, source)
            out.write(np.ascontiguousarray(values, dtype=dtype).data)


def map_slices(path: Path) -> np.ndarray:
    """Map what `write_slices` wrote, read-only.

    Raises:
        UserError: the cached file was damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise UserError(f"cached file {path} is damaged ({error}): delete it") from error


def _truncated(source: str) -> UserError:
    return UserError(f"{source} is truncated, its packed data end too early: copy it again")


def _broken(source: str, error: Exception) -> UserError:
    return UserError(f"{source} cannot be unpacked ({error}): copy or export it again")
