"""Containerfile, apptainer.def and the workflow say the same as the scripts beside them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.make_lock import PYTHONS

ROOT = Path(__file__).resolve().parents[1]
CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8")
APPTAINER = (ROOT / "apptainer.def").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8")


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match, pattern
    return match.group(1)


def test_both_containers_have_one_base_and_the_same_packages() -> None:
    base = found(r"^ARG BASE=docker\.io/library/(\S+)$", CONTAINER)
    assert found(r"^From: (\S+)$", APPTAINER) == base
    wanted = r"apt-get install -y --no-install-recommends ([^\\\n]+)"
    assert found(wanted, CONTAINER).split() == found(wanted, APPTAINER).split()
    path = r"PATH=(\S+)"
    assert found(path, CONTAINER) == found(path, APPTAINER)


def test_apptainer_takes_every_package_of_the_programs() -> None:
    taken = dict(re.findall(r"^    (\S+) (/opt/sr-cyclegan/\S+)$", APPTAINER, re.MULTILINE))
    assert all(target == f"/opt/sr-cyclegan/{name}" for name, target in taken.items())
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    needed = {"weights", "scripts", "run.sh", "test.sh", "train.py", "medicaltest.py"}
    assert packages | needed <= set(taken)
    assert all((ROOT / name).exists() for name in taken)


def test_what_git_does_not_keep_stays_out_of_the_container() -> None:
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".venv*", "wheels*", "checkpoints", "datasets", "results"} <= set(left_out)
    assert not {"weights", "scripts", "data"} & set(left_out)


def test_the_workflow_runs_every_supported_python() -> None:
    assert found(r"python: \[(.*)\]", WORKFLOW) == ", ".join(f'"{one}"' for one in PYTHONS)
    assert "- run: bash .ci/run" in WORKFLOW


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing() -> None:
    words = ["hadolint", str(ROOT / "Containerfile")]
    answer = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    assert answer.returncode == 0, answer.stdout
