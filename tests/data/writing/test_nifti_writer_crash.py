"""NIfTI writer after kills, power losses and full disks: what can be resumed is resumed."""

from __future__ import annotations

import errno
import io
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from writer_helpers import journal_of, names, partial_of, stop_after, write

from util.errors import UserError

pytest_plugins = ["writer_fixtures"]

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60.0  # seconds; only a test that fails waits so long


def test_bytes_after_the_last_whole_slice_and_a_torn_line(output: Path, unbroken: bytes) -> None:
    stop_after(output, 3)
    for file in (partial_of(output), journal_of(output)):
        with file.open("ab") as stream:
            stream.write(b"[4, 12")
    assert write(output, resume=True) == 3
    assert output.read_bytes() == unbroken


def test_lost_journal_lines(output: Path, unbroken: bytes) -> None:
    stop_after(output, 4)
    lines = journal_of(output).read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 5, "the key, the header, four slices"
    journal_of(output).write_bytes(b"".join(lines[:4]) + lines[4][:-1])
    assert write(output, resume=True) == 2
    assert output.read_bytes() == unbroken


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed"])
@pytest.mark.parametrize("slices", range(4))
def test_damaged_slice(output: Path, unbroken: bytes, damage: str, slices: int) -> None:
    """A power loss took the bytes of slice `slices` that the journal had already recorded."""
    stop_after(output, 4)
    state = json.loads(journal_of(output).read_bytes().splitlines()[1 + slices].rpartition(b" ")[0])
    content = bytearray(partial_of(output).read_bytes())
    place = state[1] + 100
    if damage == "cut":
        del content[place:]
    elif damage == "flipped":
        content[place] ^= 1
    else:
        content[place:] = bytes(len(content) - place)
    partial_of(output).write_bytes(content)
    assert write(output, resume=True) == slices
    assert output.read_bytes() == unbroken


@pytest.mark.parametrize("lost", ["partial", "journal", "header", "both"])
def test_nothing_to_resume(output: Path, unbroken: bytes, lost: str) -> None:
    stop_after(output, 3)
    if lost in ("partial", "both"):
        partial_of(output).unlink()
    if lost in ("journal", "both"):
        journal_of(output).unlink()
    if lost == "header":
        partial_of(output).write_bytes(b"?" + partial_of(output).read_bytes()[1:])
    assert write(output, resume=True) == 0
    assert output.read_bytes() == unbroken


class FullDisk(io.BufferedWriter):
    """A file on a disk that has room for some more bytes and then, once, has not."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.room = room

    def write(self, content: Any) -> int:
        length = memoryview(content).nbytes
        if length > self.room:
            super().write(memoryview(content).cast("B")[: self.room])
            self.room = 1 << 40
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= length
        return super().write(content)


def fill_disk(monkeypatch: pytest.MonkeyPatch, full: Path, room: int) -> None:
    """Give the file `full` no more than `room` bytes when it is opened to be written."""
    original = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if path == full and mode == "wb":
            return FullDisk(path, room)
        return original(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)


def assert_disk_is_full(path: Path, **options: Any) -> None:
    with pytest.raises(UserError) as caught:
        write(path, **options)
    assert str(caught.value) == (
        f"output {path} cannot be written (No space left on device): "
        "give a folder that can be written and has room"
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("full", ["partial", "journal"])
def test_full_disk_keeps_what_was_written(
    output: Path, unbroken: bytes, share: float, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for all bytes but one (share 1) or fewer; resuming finds every whole slice."""
    stop_after(output, 5)
    lines = journal_of(output).read_bytes().splitlines(keepends=True)
    if full == "partial":
        ends = [json.loads(line.rpartition(b" ")[0])[1] for line in lines[1:]]
        total = len(unbroken)
    else:
        ends = np.cumsum([len(line) for line in lines])[1:].tolist()
        total = ends[-1]
    room = int(share * (total - 1))
    with monkeypatch.context() as patched:
        fill_disk(patched, partial_of(output) if full == "partial" else journal_of(output), room)
        assert_disk_is_full(output)
    assert names(output.parent) == [f"{output.name}.partial", f"{output.name}.partial.journal"]
    whole_slices = sum(end <= room for end in ends) - 1
    assert write(output, resume=True) == max(whole_slices, 0)
    assert output.read_bytes() == unbroken


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_full_disk_leaves_nothing_without_a_key(
    output: Path, unbroken: bytes, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, partial_of(output), int(share * (len(unbroken) - 1)))
    assert_disk_is_full(output, resume_key=None)
    assert names(output.parent) == []


KILLED_RUN = """
import sys
import time
from pathlib import Path
import numpy as np
from data.writing.nifti_writer import NiftiSliceWriter

path, slices, halt = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with NiftiSliceWriter(
    path, (90, 80, slices), np.eye(4), resume_key={"seed": 0}, resume=True
) as writer:
    for index in range(writer.slices_written, slices):
        if index == halt:
            time.sleep(600)
        noise = np.random.default_rng(index).integers(-1024, 3000, (80, 90))
        writer.append(noise.astype(np.int16))
        time.sleep(0.002)
"""


@pytest.mark.slow
def test_killed_runs(output: Path) -> None:
    """SIGKILL at any moment, several times, then a run to the end: the bytes of an unbroken one."""
    slices, moments = 100, random.Random(0)
    command = [sys.executable, "-c", KILLED_RUN, str(output), str(slices)]
    lines = 0
    for _ in range(4):
        # Each run gets some slices further, so that the next has something to resume; it halts
        # before the end, should this process be too busy to kill it sooner.
        with subprocess.Popen([*command, str(lines + 16)], cwd=ROOT) as run:
            lines = wait_for_lines(journal_of(output), lines + moments.randint(3, 8), run)
            time.sleep(moments.uniform(0.0, 0.01))
            run.kill()
        assert run.returncode == -signal.SIGKILL
        assert names(output.parent) == [f"{output.name}.partial", f"{output.name}.partial.journal"]
    to_the_end = [*command, "-1"]
    subprocess.run(to_the_end, cwd=ROOT, check=True)
    resumed = output.read_bytes()
    assert names(output.parent) == [output.name, f"{output.name}.partial.journal"]
    for left in (output, journal_of(output)):
        left.unlink()
    subprocess.run(to_the_end, cwd=ROOT, check=True)
    assert resumed == output.read_bytes()


def wait_for_lines(journal: Path, lines: int, run: subprocess.Popen[bytes]) -> int:
    """Wait until the journal has that many lines; how many it has."""
    end = time.monotonic() + PATIENCE
    found = 0
    while found < lines:
        assert run.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)
        found = journal.read_bytes().count(b"\n") if journal.exists() else 0
    return found
