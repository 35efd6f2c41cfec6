"""Files that are either complete or not there: written beside, flushed, then renamed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from util.errors import UserError

PARTIAL_ENDING = ".partial"


@contextmanager
def atomic_path(path: str | Path, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path whose file takes the name `path` once the block ends well.

    The temporary name is `NAME.partial` in the same folder (made where it is missing), so that
    the rename stays on one file system. Where a file is `shared`, several processes may write it
    at a time: each has a temporary name of its own, and the last one stays.

    The content reaches the disk (fsync) before the rename: after a crash `path` holds the old
    content or the new, never a part. When the block raises, the partial file is removed and `path`
    is as before.

    Raises:
        UserError: the system refused (no space, no permission, a folder of that name).
    """
    final = Path(path)
    own = f".{token_hex(6)}" if shared else ""
    partial = final.with_name(final.name + own + PARTIAL_ENDING)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("r+b") as stream:
            os.fsync(stream.fileno())
        partial.replace(final)
    except BaseException as error:
        # Also on Ctrl-C: no half-written file may stay.
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {final}: {error}; give a folder with free space that may be written"
            ) from error
        raise


def write_text(path: str | Path, text: str, shared: bool = False) -> None:
    """Write `text` as UTF-8 with `\\n` line ends through `atomic_path`."""
    with atomic_path(path, shared) as partial:
        # A file's name may hold bytes that are no text.
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON through `atomic_path`; see `plain` for what it may hold."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` in the types that JSON knows.

    Mappings become dicts with string keys, sequences and sets lists, NumPy scalars and arrays
    and one-element tensors numbers and lists, paths and all else their text. JSON has no
    infinity and no NaN (the PSNR of equal images is infinite): they become "inf", "-inf", "nan".
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(entry) for entry in value), key=str)
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)
