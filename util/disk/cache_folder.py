"""The folder of unpacked volumes: where it is, how much it holds, and how much it may hold."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from util.errors import UserError
from util.progress import format_bytes

LIMIT_VARIABLE = "SR_CYCLEGAN_CACHE_GB"
LIMIT_GB = 50.0
IN_USE_SECONDS = 2 * 24 * 3600.0  # since it was last opened or renewed, a file may be in use
OWN_NAME = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})[._]")  # see data/volumes/cache.py
MARK = ".sr_cyclegan_cache"
_used: set[Path] = set()  # by this process


def default_cache_dir() -> Path:
    """$SR_CYCLEGAN_CACHE, else $XDG_CACHE_HOME/sr_cyclegan, else ~/.cache/sr_cyclegan."""
    own = os.environ.get("SR_CYCLEGAN_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sr_cyclegan"


def cache_limit() -> float:
    """Bytes that the cache may hold: $SR_CYCLEGAN_CACHE_GB, else 50 GB.

    Raises:
        UserError: the variable holds no number above 0.
    """
    word = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(word) if word else LIMIT_GB
    except ValueError:
        limit = -1.0
    if not limit > 0:
        raise UserError(f"${LIMIT_VARIABLE} is {word!r}, expected a number of GB above 0")
    return limit * 1e9


def cache_in_words() -> str:
    """Where the cache is, what it holds and what it may hold, in one line."""
    folder = default_cache_dir()
    held = sum(size for _, size, _ in _files(folder))
    share = f"{format_bytes(held)} of {format_bytes(cache_limit())}"
    return f"cache of unpacked volumes: {folder}, {share} (${LIMIT_VARIABLE})"


def note_use(path: Path) -> None:
    """Note that a file of the cache is in use, so that nobody makes room by it."""
    _used.add(path)
    with suppress(OSError):  # of another user, or read-only
        os.utime(path)


def renew_use() -> None:
    """Note again what this process uses, where it may run for days."""
    for path in tuple(_used):
        note_use(path)


def mark_own(folder: Path) -> None:
    """Make the folder of a cache, marked as one where it is new or empty."""
    is_new = not folder.exists() or not any(folder.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    if is_new:
        (folder / MARK).touch()


def make_room(folder: Path) -> None:
    """Delete the files that were used longest ago, until the rest is within the limit.

    Those that may be in use stay, also beyond it. Nothing goes from a folder that was there before
    it became a cache: files that are named by a digest may be somebody's scans.
    """
    if folder != default_cache_dir() and not (folder / MARK).exists():
        return
    files = _files(folder)
    beyond = sum(size for _, size, _ in files) - cache_limit()
    for used, size, path in sorted(files):
        if beyond <= 0 or time.time() - used < IN_USE_SECONDS:
            break
        if path not in _used:
            with suppress(OSError):
                path.unlink()
                beyond -= size


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """(time of the last use, bytes, path) of the cache's own files in a folder, which may be one
    where others lie."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):  # another process may delete it meanwhile
                if OWN_NAME.match(path.name):
                    facts = path.stat()
                    found.append((facts.st_mtime, facts.st_size, path))
    return found
