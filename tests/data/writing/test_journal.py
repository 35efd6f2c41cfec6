"""Journal: which states of a partial file count after a crash."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from data.writing.journal import Journal, State, differences
from data.writing.packing import Piece
from util.errors import UserError

KEY = {"format": 1, "run": {"weights": "1a2b", "options": {"seed": 0, "scale": 8}}}
CONTENTS = [b"header", b"first slice", b"second slice", b"third"]


def states_of(contents: list[bytes]) -> list[State]:
    states = [State(-1, 0, 0, 0, 0)]
    for content in contents:
        states.append(states[-1].after(Piece(content, len(content), zlib.crc32(content))))
    return states[1:]


START = states_of(CONTENTS)[0]


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A partial file with its journal of four states."""
    path = tmp_path / "a.partial"
    path.write_bytes(b"".join(CONTENTS))
    journal = Journal(path, KEY)
    journal.begin()
    for state in states_of(CONTENTS):
        journal.record(state)
    journal.close()
    return path


def slices_taken_up(partial: Path) -> int:
    """Slices of the state that is resumed, -1 for none."""
    state = Journal(partial, KEY).resume(START, partial)
    assert state in [None, *states_of(CONTENTS)]
    return -1 if state is None else state.slices


def whole_slices(length: int) -> int:
    """Slices in the first `length` bytes of the partial file, -1 for not even the header."""
    return sum(state.file_bytes <= length for state in states_of(CONTENTS)) - 1


def test_state_adds_up() -> None:
    raw = b"".join(CONTENTS)
    assert states_of(CONTENTS)[-1] == State(3, len(raw), zlib.crc32(raw), len(raw), zlib.crc32(raw))
    packed = State(0, 2, zlib.crc32(b"ab"), 1, zlib.crc32(b"x")).after(
        Piece(memoryview(b"cd"), 4, zlib.crc32(b"long"))
    )
    assert packed == State(1, 4, zlib.crc32(b"abcd"), 5, zlib.crc32(b"xlong"))


def test_whole_file(partial: Path) -> None:
    assert slices_taken_up(partial) == 3


def test_every_torn_journal(partial: Path) -> None:
    path = Journal(partial, KEY).path
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        assert slices_taken_up(partial) == max(lines - 2, -1)


def test_every_damaged_journal(partial: Path) -> None:
    path = Journal(partial, KEY).path
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        lines = whole[:place].count(b"\n")
        assert slices_taken_up(partial) == max(lines - 2, -1)


def test_every_shortened_file(partial: Path) -> None:
    for length in range(len(b"".join(CONTENTS)) + 1):
        partial.write_bytes(b"".join(CONTENTS)[:length])
        assert slices_taken_up(partial) == whole_slices(length)


def test_every_damaged_byte(partial: Path) -> None:
    for place in range(len(b"".join(CONTENTS))):
        damaged = bytearray(b"".join(CONTENTS))
        damaged[place] ^= 0x40
        partial.write_bytes(damaged)
        assert slices_taken_up(partial) == whole_slices(place)


def test_file_longer_than_a_block(partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.writing.journal.BLOCK_BYTES", 4)
    assert slices_taken_up(partial) == 3


def test_missing_files(partial: Path) -> None:
    partial.rename(partial.with_name("b.partial"))
    assert slices_taken_up(partial) == -1
    assert slices_taken_up(partial.with_name("b.partial")) == -1


def test_another_start(partial: Path) -> None:
    assert Journal(partial, KEY).resume(states_of([b"Header"])[0], partial) is None


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_rewind_and_go_on(partial: Path, kept: int) -> None:
    journal = Journal(partial, KEY)
    with journal.path.open("ab") as file:
        file.write(b"[4, 99")  # torn by a crash
    assert journal.rewind(kept) == states_of(CONTENTS)[kept]
    for state in states_of(CONTENTS)[kept + 1 : 3]:
        journal.record(state)
    journal.close()
    assert slices_taken_up(partial) == max(kept, 2)
    journal.remove()
    journal.remove()
    assert not journal.path.exists()


def test_not_open(partial: Path) -> None:
    with pytest.raises(ValueError, match="is not open"):
        Journal(partial, KEY).record(START)


def test_another_key(partial: Path) -> None:
    other = {"format": 1, "run": {"weights": "3c4d", "options": {"scale": 8, "seed": 0}}}
    with pytest.raises(UserError) as caught:
        Journal(partial, other).resume(START, partial)
    assert str(caught.value) == (
        f"{partial} cannot be resumed, it was begun by another kind of run: "
        'run.weights was "1a2b", is now "3c4d": run without --resume to start anew'
    )
    assert slices_taken_up(partial) == 3


def test_differences() -> None:
    assert differences(KEY, dict(reversed(KEY.items()))) == ""
    assert differences({"a": 1, "b": {}}, {"a": True, "b": {"c": 0}}) == (
        "a was 1, is now true; b was {}, is now missing and 1 more"
    )
    assert differences({"a": [0.0]}, {"a": [-0.0]}) == "a was [0.0], is now [-0.0]"
    long = differences({"a": "x" * 500}, {"a": None})
    assert long == f'a was "{"x" * 28}..., is now null'
