"""A file that grows as NAME.partial, may be resumed, and gets its name when it is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from data.writing.journal import Journal, State
from data.writing.packing import Packing, Piece
from util.files import PARTIAL_ENDING

NOTHING = State(slices=-1, file_bytes=0, file_crc=0, raw_bytes=0, raw_crc=0)  # not even a header


class PartialFile:
    """Header, slices and end of a file, written in this order; until the end `path` is untouched.

    Methods raise OSError where the disk refuses.

    Args:
        path: final name; its folder is made where it is missing.
        packing: how the bytes are stored.
        key: JSON facts that determine the bytes. With them a journal is kept, `abandon` leaves
            both files to be resumed, and even the finished file can be until `forget_journal`;
            with None there is no journal, and `abandon` removes the partial file.
    """

    def __init__(self, path: Path, packing: Packing, key: Mapping[str, Any] | None) -> None:
        self.path = path
        self._partial = _partial_path(path)
        self._packing = packing
        self._resumable = key is not None
        self._journal = Journal(self._partial, key or {})
        self._file: BinaryIO | None = None
        self._state = NOTHING

    @property
    def slices(self) -> int:
        """How many slices are written, those of an earlier run included."""
        return self._state.slices

    def open(self, header: bytes, resume: bool = False) -> None:
        """Start the file with its header, or resume it after its last whole slice.

        Args:
            header: raw bytes of the first piece.
            resume: resume what an earlier run of the same key left, as far as its bytes agree
                with its journal; without it, or where nothing agrees, that is replaced. A
                finished file whose journal is still there becomes the partial file again.

        Raises:
            UserError: an earlier run of another key left its files; they stay.
        """
        first = self._packing.pack(memoryview(header))
        first = replace(first, content=self._packing.start + bytes(first.content))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        left = self._partial if self._partial.exists() else self.path
        state = self._journal.resume(NOTHING.after(first), left) if resume else None
        if state is not None and left == self.path and state.slices < self._journal.slices():
            state = None  # another result that begins alike stands there
        if state is not None:
            left.replace(self._partial)
            self._file = self._partial.open("r+b")
            self.rewind(state.slices)
            return
        self._state = NOTHING
        self._journal.remove()  # before its partial file goes: it must not vouch for another
        self._file = self._partial.open("wb")
        if self._resumable:
            self._journal.begin()
        self.write(first)

    def write(self, piece: Piece) -> None:
        """Add the next slice and record it."""
        file = self._opened()
        file.write(piece.content)
        file.flush()
        state = self._state.after(piece)
        if self._resumable:
            self._journal.record(state)
        self._state = state

    def rewind(self, slices: int) -> None:
        """Drop all slices but the first `slices`; for files with a key."""
        file = self._opened()
        self._state = self._journal.rewind(slices)
        file.truncate(self._state.file_bytes)
        file.seek(0, os.SEEK_END)

    def seal(self) -> None:
        """End the file and bring it to the disk; only its name is missing now."""
        file = self._opened()
        file.write(self._packing.end(self._state.raw_bytes, self._state.raw_crc))
        file.flush()
        os.fsync(file.fileno())

    def finish(self) -> None:
        """Give the sealed file its name."""
        self._opened().close()
        self._partial.replace(self.path)
        self._file = None
        self._journal.close()

    def abandon(self) -> None:
        """Close without finishing; leave what can be resumed, remove what cannot."""
        file, self._file = self._file, None
        for opened in (file, self._journal):
            # A full disk refuses buffered bytes once more here; no journal line stands for them.
            with suppress(OSError):
                if opened is not None:
                    opened.close()
        if file is not None and not self._resumable:
            self._partial.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self._partial} is not open")
        return self._file


def forget_journal(path: Path) -> None:
    """Remove the journal of a finished file: there is nothing left that a run could resume."""
    Journal(_partial_path(path), {}).remove()


def begun_with(path: Path) -> dict[str, Any] | None:
    """The key of the run that began `path` and left a journal; None where there is none."""
    return Journal(_partial_path(path), {}).stored_key()


def partial_files(path: Path) -> tuple[Path, Path]:
    """What an unfinished run leaves in place of `path`: the partial file and its journal."""
    partial = _partial_path(path)
    return partial, Journal(partial, {}).path


def _partial_path(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL_ENDING)
