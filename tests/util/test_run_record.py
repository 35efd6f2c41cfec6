from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from util.errors import UserError
from util.privacy import REMOVED, hide
from util.run_record import (
    PROJECT_FOLDER,
    device_name,
    git_commit,
    peak_memory,
    project_version,
    run_record,
    write_run_record,
)


def _git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def test_record_holds_what_a_reader_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--name", "two words"])
    path = tmp_path / "out" / "run.json"
    returned = write_run_record(
        path, {"lr": 1e-5, "folder": Path("a")}, seed=7, outputs=["a.nii.gz"], psnr=float("inf")
    )
    record = json.loads(path.read_text())
    assert record["options"] == {"lr": 1e-5, "folder": "a"}
    assert (record["seed"], record["outputs"], record["psnr"]) == (7, ["a.nii.gz"], "inf")
    assert returned["seed"] == 7
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"]["numpy"] == np.__version__
    assert record["command_line"] == "train.py --name 'two words'"
    assert record["device"] == "cpu"
    assert record["device_name"]
    assert record["peak_device_memory_bytes"] is None
    assert record["cpu_count"] >= 1
    assert record["duration_seconds"] >= 0
    assert datetime.fromisoformat(record["started"]).utcoffset() is not None


def test_a_fact_replaces_the_entry_of_its_name() -> None:
    assert run_record({}, duration_seconds=3.5)["duration_seconds"] == 3.5


def test_what_resuming_compares_is_never_cleared() -> None:
    hide(["12345"])
    key = {"input": "3fa12345bd", "low": -1000.0}
    record = run_record({"input": "12345"}, determined_by=key)
    assert record["determined_by"] == key
    assert record["options"] == {"input": REMOVED}


def test_versions_and_the_machine_are_never_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "platform", lambda: "Linux-6.8.0-10012-generic")
    monkeypatch.setattr("util.run_record.git_commit", lambda folder: "ab10012cd")
    hide(["10012", np.__version__, "cpu"])
    record = run_record({"input": "10012"})
    assert record["platform"] == "Linux-6.8.0-10012-generic"
    assert (record["git_commit"], record["versions"]["numpy"]) == ("ab10012cd", np.__version__)
    assert record["device"] == "cpu"
    assert record["options"] == {"input": REMOVED}


def test_version_is_that_of_the_project_file() -> None:
    text = (PROJECT_FOLDER / "pyproject.toml").read_text()
    assert f'version = "{project_version()}"' in text


def test_torch_is_not_loaded_for_the_record() -> None:
    code = (
        "import sys; from util.run_record import run_record; run_record({}, 'cuda:0'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_FOLDER).returncode == 0


def test_commit(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    assert git_commit(folder) is None
    _git(folder, "init")
    assert git_commit(folder) is None  # no commit yet
    (folder / "a").write_text("1")
    _git(folder, "add", "a")
    _git(folder, "commit", "-m", "first")
    _git(folder, "tag", "-a", "v1", "-m", "v1")
    commit = git_commit(folder)
    assert commit == _git(folder, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", str(commit))
    (folder / "a").write_text("2")
    assert git_commit(folder) == f"{commit}-dirty"
    # The project unpacked somewhere inside another repository has no commit of its own.
    (folder / "inner").mkdir()
    assert git_commit(folder / "inner") is None


def test_no_git_program_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_in_bytes() -> None:
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    found = peak_memory()
    assert match is not None
    assert found is not None
    # The system keeps a parent's peak through fork, so it may be somewhat above this process's.
    assert 0.9 < found / (int(match.group(1)) * 1024) < 100


def test_device_name_is_never_empty() -> None:
    assert device_name("cpu")
    assert device_name("mps")


def test_unwritable_place_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*run\.json"):
        write_run_record(tmp_path / "taken" / "run.json", {})
