"""Cache files: named by content, whole or absent, safe against two processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from data.volumes.cache import cached_file, file_key, files_key
from util.errors import UserError


def test_keys(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    one, other = tmp_path / "one", tmp_path / "other name"
    one.write_bytes(content)
    other.write_bytes(content)
    assert file_key(one) == file_key(other) == hashlib.sha256(content).hexdigest()
    other.write_bytes(content[:-1])
    assert file_key(one) != file_key(other)
    assert files_key([one, other]) != files_key([other, one])


def test_made_once_and_kept(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache folder"
    calls = []

    def make(target: Path) -> None:
        calls.append(target)
        assert target.parent == cache
        assert not (cache / "a.bin").exists()
        target.write_bytes(b"voxels")

    for _ in range(2):
        assert cached_file(cache, "a.bin", make).read_bytes() == b"voxels"
    assert len(calls) == 1
    assert [path.name for path in cache.glob("[!.]*")] == ["a.bin"]


@pytest.mark.parametrize("error", [UserError("broken"), KeyboardInterrupt(), RuntimeError("x")])
def test_nothing_stays_after_an_error(tmp_path: Path, error: BaseException) -> None:
    def make(target: Path) -> None:
        target.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        cached_file(tmp_path, "a.bin", make)
    assert list(tmp_path.glob("[!.]*")) == []


def test_full_disk_is_a_user_error(tmp_path: Path) -> None:
    def make(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*SR_CYCLEGAN_CACHE"):
        cached_file(tmp_path, "a.bin", make)
    assert list(tmp_path.glob("[!.]*")) == []


def test_a_source_that_cannot_be_read_is_not_told_of_the_cache(tmp_path: Path) -> None:
    def make(target: Path) -> None:
        raise OSError(5, "Input/output error", str(tmp_path / "disk" / "ct.dcm"))

    with pytest.raises(UserError, match=r"disk/ct\.dcm cannot be read \(Input/output error\)"):
        cached_file(tmp_path / "cache", "a.bin", make)


def test_cache_folder_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for folder in (file, file / "below"):
        with pytest.raises(UserError, match=r"cache folder .*file"):
            cached_file(folder, "a.bin", lambda target: None)


def test_old_leftovers_are_removed_and_young_ones_kept(tmp_path: Path) -> None:
    old, young = tmp_path / "another.bin.0.partial", tmp_path / "a.bin.1.partial"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    cached_file(tmp_path, "a.bin", lambda target: None)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["a.bin", "a.bin.1.partial"]


def _slow_make(target: Path) -> None:
    with target.open("wb") as stream:
        for _ in range(20):
            stream.write(b"x" * 1000)
            stream.flush()
            time.sleep(0.01)


def _use(folder: Path, start: object, sizes: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    path = cached_file(folder, "a.bin", _slow_make)
    sizes.put(len(path.read_bytes()))  # type: ignore[attr-defined]


def test_two_processes_at_once_both_find_a_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, sizes = context.Event(), context.SimpleQueue()
    processes = [context.Process(target=_use, args=(tmp_path, start, sizes)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    assert [sizes.get() for _ in processes] == [20_000] * 3
    for process in processes:
        process.join()
        process.close()
    sizes.close()
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["a.bin"]
