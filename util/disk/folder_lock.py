"""One writer to a folder: a second one would mix its files with those of the first."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from util.errors import UserError
from util.processes import process_place

LOCK = ".lock"
RETRY_SECONDS = 0.5
# What a file system answers that keeps no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO)
_held: set[Path] = set()  # by this process, whose own locks never stand in each other's way


@contextmanager
def owned_folder(folder: Path, remedy: str, patient: bool = False) -> Iterator[None]:
    """Hold a folder while the block runs; nobody else does so meanwhile.

    The lock is one of the system's (POSIX, on the file `.lock`): it goes with the process, however
    that ends, and processes that it forked do not keep it. Network file systems hand it to other
    machines where they are set up so; some keep it to one machine without saying.

    Args:
        folder: made where it is missing, and removed where it stays empty.
        remedy: what to do instead, for the message.
        patient: wait for the other instead of giving up.

    Raises:
        UserError: another process holds it; says which. Or the folder cannot be written.
    """
    folder = folder.resolve()
    path = folder / LOCK
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        file = _locked(path, remedy, patient)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; give a folder that may be written"
        ) from error
    _held.add(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: whoever opened it before finds that it is gone
        _held.discard(path)
        os.close(file)
        with suppress(OSError):  # the first that is not empty
            for place in missing:
                place.rmdir()


@contextmanager
def first_owns_folder(folder: Path, remedy: str) -> Iterator[None]:
    """As `owned_folder`, for the first of the processes that torchrun starts; nothing in others."""
    if process_place()[0] > 0:
        yield
        return
    with owned_folder(folder, remedy):
        yield


def _locked(path: Path, remedy: str, patient: bool) -> int:
    """Descriptor of the lock's file, once it is ours."""
    told = False
    while True:
        if path in _held:
            raise UserError(f"{path.parent} is being written by this very process: {remedy}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its owner has just removed the empty folder
            continue
        except PermissionError as error:
            if not path.exists():
                raise
            raise UserError(
                f"{path} is of another user, who may be writing there: {remedy}, or remove that "
                "file if nobody is"
            ) from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno == errno.ESTALE:  # its owner has just removed it
                continue
            if error.errno in NO_LOCKS:
                print(
                    f"warning: {path.parent} lies on a file system without locks: see to it that "
                    "no other run writes there",
                    file=sys.stderr,
                )
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            owner = _content(path)
            if not patient:
                raise UserError(f"{path.parent} is in use by {_words(owner)}: {remedy}") from None
            if not told:
                print(f"waiting for {_words(owner)}, which writes {path.parent}", file=sys.stderr)
                told = True
            time.sleep(RETRY_SECONDS)
            continue
        if _is_gone(path, file):  # its owner has left between our opening and our lock
            os.close(file)
            continue
        with suppress(OSError):  # whoever may write the folder may take the lock after a crash
            os.fchmod(file, path.parent.stat().st_mode & 0o666)
        os.truncate(file, 0)
        os.write(file, _own_words())
        return file


def _content(path: Path) -> bytes:
    with suppress(OSError):  # under locks that forbid reading, too
        return path.read_bytes()
    return b""


def _is_gone(path: Path, file: int) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return True


def _own_words() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    facts = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    return json.dumps(facts).encode()


def _words(owner: bytes) -> str:
    try:
        told = json.loads(owner)
        return f"process {told['process']} on {told['host']} since {told['since']}"
    except (ValueError, KeyError, TypeError):  # it holds the lock and has not written yet
        return "another process"
