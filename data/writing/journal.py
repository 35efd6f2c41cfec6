"""What a growing file held after each of its slices, so that it can be resumed after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isal import isal_zlib

from data.writing.packing import Piece
from util.errors import UserError, some_of

BLOCK_BYTES = 1 << 20
SHOWN_CHARACTERS = 32


@dataclass(frozen=True)
class State:
    """A file that ends after a whole slice."""

    slices: int  # how many slices it holds
    file_bytes: int  # its length as stored
    file_crc: int  # CRC-32 of these bytes
    raw_bytes: int  # its length before packing
    raw_crc: int  # CRC-32 of the bytes before packing

    def after(self, piece: Piece) -> State:
        """The state once the next slice is written."""
        return State(
            self.slices + 1,
            self.file_bytes + memoryview(piece.content).nbytes,
            isal_zlib.crc32(piece.content, self.file_crc),
            self.raw_bytes + piece.raw_bytes,
            isal_zlib.crc32_combine(self.raw_crc, piece.raw_crc, piece.raw_bytes),
        )


class Journal:
    """Text file beside a partial file: its key, then one line a state, oldest first.

    A line is JSON, a space, and the CRC-32 of that JSON in hexadecimal. A line that a crash tore
    or damaged ends the journal: neither it nor any later one counts.

    Args:
        partial: the growing file; the journal is `PARTIAL.journal`.
        key: facts that determine the file's bytes, in the types that JSON knows.
    """

    def __init__(self, partial: Path, key: Mapping[str, Any]) -> None:
        self.path = partial.with_name(partial.name + ".journal")
        self._key = key
        self._file: BinaryIO | None = None

    def begin(self) -> None:
        """Start anew, replacing the journal of an earlier run."""
        self._file = self.path.open("wb")
        self._add(self._key)

    def resume(self, start: State, file: Path) -> State | None:
        """The last state that a file's bytes confirm; changes nothing.

        Args:
            start: how this run would begin; what began otherwise is not resumed.
            file: the partial file, or what it became.

        Returns:
            None where there is no journal, no such file, or nothing whole in them.

        Raises:
            UserError: the journal has another key.
        """
        try:
            values = _whole(self.path.read_bytes().splitlines(keepends=True))
            if not values or not file.exists():
                return None
        except FileNotFoundError:
            return None
        if unlike := differences(values[0], self._key):
            raise UserError(
                f"{file} cannot be resumed, it was begun by another kind of run: "
                f"{unlike}: run without --resume to start anew"
            )
        states = [State(*numbers) for numbers in values[1:]]
        return _confirmed(file, states) if states[:1] == [start] else None

    def stored_key(self) -> dict[str, Any] | None:
        """The key that the journal on the disk was begun with; None where there is none."""
        try:
            values = _whole(self.path.read_bytes().splitlines(keepends=True)[:1])
        except FileNotFoundError:
            return None
        return values[0] if values and isinstance(values[0], dict) else None

    def slices(self) -> int:
        """How many slices the whole lines on the disk tell of; -1 for not even a header."""
        return len(_whole(self.path.read_bytes().splitlines(keepends=True))) - 2

    def rewind(self, slices: int) -> State:
        """Drop all states after that of so many slices, and return it."""
        lines = self.path.read_bytes().splitlines(keepends=True)[: slices + 2]  # key and start
        if self._file is None:
            self._file = self.path.open("r+b")
        self._file.truncate(sum(map(len, lines)))
        self._file.seek(0, os.SEEK_END)
        return State(*_whole(lines)[-1])

    def record(self, state: State) -> None:
        """Add a state whose bytes the operating system already has."""
        self._add(astuple(state))

    def close(self) -> None:
        """Close the file; it stays."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def remove(self) -> None:
        """Close the file and delete it, if it is there."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _add(self, value: Any) -> None:
        if self._file is None:
            raise ValueError(f"{self.path} is not open: begin it or resume it first")
        self._file.write(_line(value))
        self._file.flush()  # to the operating system: there it outlives a killed process


def differences(got: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The entries in which two keys differ, some of them, on one line; empty where they are equal.

    Values count as equal if JSON writes them alike: 1 is neither 1.0 nor true.
    """
    old, new = _flat(got), _flat(expected)
    unlike = [
        f"{name} was {_shortened(old.get(name, 'missing'))}, "
        f"is now {_shortened(new.get(name, 'missing'))}"
        for name in old | new
        if old.get(name) != new.get(name)
    ]
    return some_of(unlike, 2, "; ")


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """JSON of the innermost entries under dotted names."""
    if not isinstance(value, Mapping) or not value:
        return {name: json.dumps(value)}
    entries: dict[str, str] = {}
    for inner, entry in value.items():
        entries |= _flat(entry, f"{name}.{inner}" if name else inner)
    return entries


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _line(value: Any) -> bytes:
    text = json.dumps(value).encode()
    return b"%s %08x\n" % (text, isal_zlib.crc32(text))


def _whole(lines: Sequence[bytes]) -> list[Any]:
    """What the lines hold, up to the first that is torn or damaged."""
    values = []
    for line in lines:
        text, _, check = line.rpartition(b" ")
        if check != b"%08x\n" % isal_zlib.crc32(text):
            break
        values.append(json.loads(text))
    return values


def _confirmed(path: Path, states: Sequence[State]) -> State | None:
    """The last state up to which the file's bytes agree; reads them once, block by block."""
    confirmed = None
    position = crc = 0
    with path.open("rb") as file:
        for state in states:
            while position < state.file_bytes:
                block = file.read(min(BLOCK_BYTES, state.file_bytes - position))
                if not block:
                    break
                position += len(block)
                crc = isal_zlib.crc32(block, crc)
            if (position, crc) != (state.file_bytes, state.file_crc):
                break
            confirmed = state
    return confirmed
