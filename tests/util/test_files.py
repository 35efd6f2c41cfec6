from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from util.errors import UserError
from util.files import atomic_path, plain, write_json, write_text


def test_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "weights.pth"
    with atomic_path(target) as partial:
        assert partial == tmp_path / "new" / "weights.pth.partial"
        partial.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError("torch failed"), KeyboardInterrupt()])
def test_failure_keeps_the_old_content_and_leaves_no_partial(
    tmp_path: Path, error: BaseException
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"cannot write .*taken.*a\.txt: .*; give a folder") as info:
        write_text(tmp_path / "taken" / "a.txt", "x")
    assert "\n" not in str(info.value)

    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "folder", "x")
    assert not (tmp_path / "folder.partial").exists()


def test_text_is_written_byte_for_byte(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "5 \u00b5m\n")
    assert (tmp_path / "a.txt").read_bytes() == b"5 \xc2\xb5m\n"


def test_json_holds_what_runs_hold(tmp_path: Path) -> None:
    value = {
        "path": Path("a") / "b",
        "psnr": float("inf"),
        "bad": float("nan"),
        3: (1, 2.5, None, True),
        "numpy": [np.float32(0.5), np.int64(7), np.arange(2), np.float64("-inf")],
        "tensor": torch.tensor(2.0),
        "set": {"b", "a"},
    }
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "path": str(Path("a") / "b"),
        "psnr": "inf",
        "bad": "nan",
        "3": [1, 2.5, None, True],
        "numpy": [0.5, 7, [0, 1], "-inf"],
        "tensor": 2.0,
        "set": ["a", "b"],
    }


def test_plain_leaves_json_types_alone() -> None:
    value = {"a": [1, 0.5, "x", None, False]}
    assert plain(value) == value
    assert plain(torch.device("cpu")) == "cpu"
