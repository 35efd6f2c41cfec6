from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from util.disk.disk_space import free_space, refuse_small_disk
from util.errors import UserError

Usage = namedtuple("Usage", "total used free")


def test_the_disk_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert free_space(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, 0.05)


def test_a_disk_that_is_too_small_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 0, 5_000_000))
    refuse_small_disk(tmp_path, 5_000_000, "it", "give another")
    with pytest.raises(UserError, match=r"has 5\.0 MB free, it takes about 5\.1 MB: free space"):
        refuse_small_disk(tmp_path, 5_100_000, "it", "give another")


@pytest.mark.parametrize("answer", [Usage(0, 0, 0), OSError("not supported")])
def test_a_file_system_that_does_not_say_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Usage | OSError
) -> None:
    def asked(path: Path) -> Usage:
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(shutil, "disk_usage", asked)
    refuse_small_disk(tmp_path, 1e15, "it", "give another")
