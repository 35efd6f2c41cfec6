from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import util.disk.cache_folder
from util.disk.cache_folder import (
    IN_USE_SECONDS,
    cache_in_words,
    cache_limit,
    default_cache_dir,
    make_room,
    mark_own,
    note_use,
    renew_use,
)
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")
LONG_AGO = time.time() - 2 * IN_USE_SECONDS


@pytest.fixture(autouse=True)
def nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util.disk.cache_folder, "_used", set())


def cached(folder: Path, number: int, used: float, size: int = 1000) -> Path:
    path = folder / f"{number:064x}.nii"
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_CYCLEGAN_CACHE", "/a/b")
    assert default_cache_dir() == Path("/a/b")
    monkeypatch.delenv("SR_CYCLEGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_cache_dir() == Path("/c/sr_cyclegan")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert default_cache_dir() == Path("/h/.cache/sr_cyclegan")


def test_the_files_that_were_used_longest_ago_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_CYCLEGAN_CACHE_GB", "2.5e-6")
    mark_own(tmp_path)
    old = [cached(tmp_path, number, LONG_AGO + number) for number in (3, 1, 2, 0)]
    stranger = tmp_path / "thesis.nii"
    stranger.write_bytes(bytes(9000))
    os.utime(stranger, (0, 0))
    make_room(tmp_path)
    assert sorted(path.name[-5:] for path in tmp_path.glob("0*")) == ["2.nii", "3.nii"]
    assert stranger.exists()
    assert old[0].exists()


def test_what_may_be_in_use_stays_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_CYCLEGAN_CACHE_GB", "1e-9")
    mark_own(tmp_path)
    fresh = cached(tmp_path, 1, time.time() - IN_USE_SECONDS / 2)
    mine = cached(tmp_path, 2, LONG_AGO)
    note_use(mine)
    assert mine.stat().st_mtime > LONG_AGO + 1
    os.utime(mine, (LONG_AGO, LONG_AGO))
    other = cached(tmp_path, 3, LONG_AGO)
    make_room(tmp_path)
    assert (fresh.exists(), mine.exists(), other.exists()) == (True, True, False)
    renew_use()
    assert mine.stat().st_mtime > LONG_AGO + 1


def test_the_cache_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_CYCLEGAN_CACHE", str(tmp_path / "c"))
    assert f"{tmp_path / 'c'}, 0 bytes of 50.0 GB ($SR_CYCLEGAN_CACHE_GB)" in cache_in_words()
    (tmp_path / "c").mkdir()
    cached(tmp_path / "c", 1, 0.0, 2500)
    monkeypatch.setenv("SR_CYCLEGAN_CACHE_GB", "3")
    assert "2.5 kB of 3.0 GB" in cache_in_words()


@pytest.mark.parametrize("word", ["much", "0", "-3", "nan"])
def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("SR_CYCLEGAN_CACHE_GB", word)
    with pytest.raises(UserError, match="expected a number of GB above 0"):
        cache_limit()


def test_a_folder_that_was_there_before_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_CYCLEGAN_CACHE_GB", "1e-9")
    scan = cached(tmp_path, 1, LONG_AGO)  # pseudonymised by a digest
    mark_own(tmp_path)
    make_room(tmp_path)
    assert scan.exists()
