"""The stress driver, in short: it comes to its end, and it can find something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SABOTAGE = """
import sys
from benchmarks import reliability

def careless(job, chance, log):
    code = reliability.start(job.program, job.next_words(), log).wait()
    name = "loss_log.csv" if job.program == "train" else "clinical.nii.gz"
    with (job.folder / name).open("ab") as stream:
        stream.write(b"0")
    return "carelessness"

reliability.FAULTS = {"train": [careless], "medicaltest": [careless]}
sys.exit(reliability.main(sys.argv[1:]))
"""


def run(folder: Path, *start: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: its forks must not have pytest's threads and streams.
    return subprocess.run(
        [sys.executable, *start, "--out", str(folder / "out"), "--faults", "3", "--seed", "3"],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=400,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
def test_some_faults_lose_nothing(tmp_path: Path) -> None:
    answer = run(tmp_path, "-m", "benchmarks.reliability")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.splitlines()[-1].startswith("3 faults in ")
    assert answer.stdout.endswith(" minutes: nothing lost\n")


@pytest.mark.slow
@pytest.mark.long
def test_what_is_lost_is_found(tmp_path: Path) -> None:
    answer = run(tmp_path, "-c", SABOTAGE)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "LOST after 1 faults" in answer.stdout
    assert " is not that of an undisturbed run" in answer.stdout
