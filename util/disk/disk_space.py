"""Whether a disk has room, before hours of work are to be written to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from util.errors import UserError
from util.progress import format_bytes

NOT_KNOWN = 1 << 62


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be made; very many where nobody says."""
    absolute = folder.absolute()
    there = next(place for place in (absolute, *absolute.parents) if place.exists())
    try:
        total, _, free = shutil.disk_usage(there)
    except OSError:
        return NOT_KNOWN
    return free if total else NOT_KNOWN


def refuse_small_disk(folder: Path, needed: float, what: str, remedy: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: to be written to.
        needed: bytes that must be free.
        what: they are for.
        remedy: besides freeing space.

    Raises:
        UserError: says how much is free, and how much is needed.
    """
    free = free_space(folder)
    if free < needed:
        raise UserError(
            f"the disk of {folder} has {format_bytes(free)} free, {what} takes about "
            f"{format_bytes(needed)}: free space there, or {remedy}"
        )
