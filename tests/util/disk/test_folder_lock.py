from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from lock_helpers import another_owner

import util.disk.folder_lock
from util.disk.folder_lock import LOCK, first_owns_folder, owned_folder
from util.errors import UserError

REMEDY = "give another folder"


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with another_owner(folder) as owner:
        with pytest.raises(UserError) as raised, owned_folder(folder, REMEDY):
            pass
        host = re.escape(socket.gethostname())
        expected = (
            rf"{re.escape(str(folder))} is in use by process {owner.pid} on {host} since "
            rf"{time.strftime('%Y')}-\d\d-\d\d \d\d:\d\d:\d\d: give another folder"
        )
        assert re.fullmatch(expected, str(raised.value))
        owner.communicate("")
        with owned_folder(folder, REMEDY):
            assert (folder / LOCK).is_file()
    assert not folder.exists()


def test_a_crash_gives_the_folder_free(tmp_path: Path) -> None:
    with another_owner(tmp_path) as owner:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert (tmp_path / LOCK).is_file()
        with owned_folder(tmp_path, REMEDY):
            pass
    assert list(tmp_path.iterdir()) == []


def test_processes_that_the_owner_forked_do_not_keep_it(tmp_path: Path) -> None:
    """Loader processes live on for seconds when the first one is killed."""
    with another_owner(tmp_path, "with a child") as owner:
        owner.kill()
        owner.wait()
        with owned_folder(tmp_path, REMEDY):
            pass


def test_one_process_does_not_hold_a_folder_twice(tmp_path: Path) -> None:
    with owned_folder(tmp_path, REMEDY):
        very = pytest.raises(UserError, match="by this very process: give another")
        with very, owned_folder(tmp_path, REMEDY):
            pass
        with another_owner(tmp_path / "case"):  # one inside it is another folder
            pass
    with owned_folder(tmp_path, REMEDY):
        pass


def test_the_patient_wait_and_say_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with another_owner(tmp_path / "made") as owner:
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                owner.communicate("")  # which removes the empty folder

        monkeypatch.setattr(util.disk.folder_lock.time, "sleep", wait)
        with owned_folder(tmp_path / "made", REMEDY, patient=True):
            assert len(waits) == 3
    assert capsys.readouterr().err.count(f"waiting for process {owner.pid} on ") == 1


def test_one_folder_by_two_names_is_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    very = pytest.raises(UserError, match="by this very process")
    with owned_folder(tmp_path / "folder", REMEDY), very, owned_folder(tmp_path / "link", REMEDY):
        pass


def test_folders_that_stay_empty_go_and_those_that_were_there_stay(tmp_path: Path) -> None:
    with owned_folder(tmp_path / "a" / "b", REMEDY):
        (tmp_path / "a" / "kept").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept"]
    with pytest.raises(ValueError, match="within"), owned_folder(tmp_path / "c", REMEDY):
        raise ValueError("within")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with owned_folder(tmp_path, REMEDY):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path} lies on a file system without locks: ")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    named = pytest.raises(UserError, match=r"cannot write .*/file/results: .*; give a folder that")
    with named, owned_folder(tmp_path / "file" / "results", REMEDY):
        pass


def test_of_several_processes_the_first_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_owner(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with first_owns_folder(tmp_path, REMEDY):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(UserError, match="is in use by"), first_owns_folder(tmp_path, REMEDY):
            pass
