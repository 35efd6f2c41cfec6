"""Files unpacked once and kept: named by the content they came from, never half written."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from util.errors import UserError

BLOCK_BYTES = 1 << 20
STALE_SECONDS = 24 * 3600.0


def default_cache_dir() -> Path:
    """$SR_CYCLEGAN_CACHE, else $XDG_CACHE_HOME/sr_cyclegan, else ~/.cache/sr_cyclegan."""
    own = os.environ.get("SR_CYCLEGAN_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sr_cyclegan"


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
        return target
    partial = cache_dir / f"{name}.{secrets.token_hex(6)}.partial"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_stale(cache_dir, name)
        partial.touch(exist_ok=False)
        make(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    except OSError as error:
        raise UserError(
            f"unpacking into the cache folder {cache_dir} failed ({error.strerror or error}): "
            "free space there, or set SR_CYCLEGAN_CACHE to a folder with room"
        ) from error
    finally:
        # NotADirectoryError: a file stands where the cache folder should be.
        with suppress(NotADirectoryError):
            partial.unlink(missing_ok=True)
    return target


def _remove_stale(cache_dir: Path, name: str) -> None:
    """Remove what killed processes left; younger files may still be growing."""
    for leftover in cache_dir.glob(f"{name}.*.partial"):
        with suppress(FileNotFoundError):  # its owner may rename it meanwhile
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()
