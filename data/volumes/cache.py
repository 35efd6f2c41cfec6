"""Files unpacked once and kept: named by the content they came from, never half written, and
streamed there in constant memory."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import igzip, igzip_lib

from data.volumes.checks import check_finite
from data.volumes.mapping import map_file
from util.disk.cache_folder import make_room, mark_own, note_use
from util.errors import UserError

BLOCK_BYTES = 1 << 20
STALE_SECONDS = 24 * 3600.0
# Part of the names of decoded volumes: another one whenever a reader makes other voxels of the same
# bytes, so that those of before are not found.
DECODING = 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
ANY_HEADER = 47  # window bits that accept both a zlib and a gzip header


def file_key(path: str | Path) -> str:
    """SHA-256 of a file's content, 64 hex digits, read in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def files_key(paths: Sequence[Path]) -> str:
    """SHA-256 over the contents of several files in their order (slices of one volume)."""
    return hashlib.sha256("".join(file_key(path) for path in paths).encode()).hexdigest()


def decoded_name(key: str) -> str:
    """Name of a decoded volume in the cache, by the key of the files that it came from."""
    return f"{key}_{DECODING}.npy"


def cached_file(cache_dir: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Path of a cached file, made first where it is missing.

    Two processes that want the same file may both make it; each writes its own temporary file
    and the rename is atomic, so either finds a whole file.

    Args:
        cache_dir: folder of the cache, made where it is missing.
        name: file name inside it; must depend on the content that goes in.
        make: writes the content to the path that it gets. Whatever it raises passes through,
            and nothing stays behind.

    Raises:
        UserError: the cache folder cannot be written or is full.
    """
    target = cache_dir / name
    if target.is_file():
        note_use(target)
        return target
    partial = cache_dir / f"{name}.{secrets.token_hex(6)}.partial"
    try:
        mark_own(cache_dir)
        _remove_stale(cache_dir)
        partial.touch(exist_ok=False)
        make(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or error
        if error.errno in NO_ROOM or _is_within(error.filename, cache_dir):
            raise UserError(
                f"unpacking into the cache folder {cache_dir} failed ({reason}): "
                "free space there, or set SR_CYCLEGAN_CACHE to a folder with room"
            ) from error
        raise UserError(
            f"{error.filename or 'what was to be unpacked'} cannot be read ({reason}): check it, "
            f"its disk and that of the cache folder {cache_dir}"
        ) from error
    finally:
        # NotADirectoryError: a file stands where the cache folder should be.
        with suppress(NotADirectoryError):
            partial.unlink(missing_ok=True)
    note_use(target)
    make_room(cache_dir)
    return target


def _is_within(filename: object, folder: Path) -> bool:
    """Whether an error's file, if it names one, is a folder, lies in it, or is one above it."""
    if not isinstance(filename, str | os.PathLike):
        return False
    path = Path(filename)
    return folder == path or folder in path.parents or path in folder.parents


def _remove_stale(cache_dir: Path) -> None:
    """Remove what killed processes left; younger files may still be growing."""
    for leftover in cache_dir.glob("*.partial"):
        with suppress(FileNotFoundError):  # its owner may rename it meanwhile
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()


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


def map_unpacked(
    path: Path, dtype: np.dtype, shape: tuple[int, int, int], offset: int = 0
) -> np.memmap:
    """Map the voxels of an unpacked file of the cache, see `map_file`.

    Raises:
        UserError: the cached file was damaged.
    """
    try:
        return map_file(path, dtype, shape, offset, str(path))
    except UserError as error:
        raise UserError(f"cached file {path} is damaged (it is too short): delete it") from error


def _truncated(source: str) -> UserError:
    return UserError(f"{source} is truncated, its packed data end too early: copy it again")


def _broken(source: str, error: Exception) -> UserError:
    return UserError(f"{source} cannot be unpacked ({error}): copy or export it again")
