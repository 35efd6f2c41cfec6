"""Several volumes in one call of medicaltest.py, and in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lock_helpers import another_owner
from training_helpers import write_case, write_checkpoint

import medicaltest
import methods.super_resolution.method
from util.errors import run_command_line

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds; only a test that fails waits so long


class Cohort:
    """Cases in a folder, and a 2x model of random weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cohort"
        self.out = folder / "out"
        self.checkpoint = write_checkpoint(folder / "checkpoints", "run")

    def add(self, *names: str) -> None:
        """Cases of equal voxels, so that equal results are expected."""
        for name in names:
            write_case(self.folder, name, (26, 22, 4))

    def words(self, *more: str) -> list[str]:
        return [
            "--gpu_ids", "-1", "--backend", "torch", "--checkpoint", str(self.checkpoint),
            "--input", str(self.folder), "--results_dir", str(self.out), "--page_mb", "0", *more,
        ]  # fmt: skip

    def run(self, *more: str, code: int = 0) -> None:
        assert run_command_line(medicaltest.main, self.words(*more)) == code

    def results(self, *names: str) -> list[dict[str, bytes]]:
        return [
            {path.name: path.read_bytes() for path in (self.out / name).glob("*.nii.gz")}
            for name in names
        ]

    def finished(self) -> list[str]:
        return sorted(path.parent.name for path in self.out.glob("*/run.json"))


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path)


def test_a_bad_case_is_told_at_the_end_and_the_others_are_done(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort.add("a", "c")
    (cohort.folder / "b.nii.gz").write_bytes(b"not a volume")
    cohort.run(code=1)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines()[-2] == "error: 1 of 3 cases failed:"
    assert err.splitlines()[-1].startswith(f"  {cohort.folder / 'b.nii.gz'}: ")
    assert cohort.finished() == ["a", "c"]
    assert not (cohort.out / "b").exists()
    first, second = cohort.results("a", "c")
    assert len(first) == 2
    assert first == second


def test_a_case_that_another_run_works_on_is_refused_and_the_others_are_done(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort.add("a", "b")
    with another_owner(cohort.out / "b") as owner:
        cohort.run(code=1)
        told = capsys.readouterr().err.splitlines()[-1]
        assert f"{cohort.out / 'b'} is in use by process {owner.pid} on " in told
        assert told.endswith(": wait for its end, or give another --results_dir")
    assert cohort.finished() == ["a"]
    assert [path.name for path in (cohort.out / "b").iterdir()] == [".lock"]  # of a crashed run
    cohort.run("--resume")
    assert cohort.finished() == ["a", "b"]
    assert list(cohort.out.rglob(".lock")) == []


def test_a_case_that_another_run_has_finished_meanwhile_is_kept(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort.add("a", "b")
    original = methods.super_resolution.method.super_resolve_case

    def beside_another(path: Path, *rest: object) -> None:
        (cohort.out / "b").mkdir(exist_ok=True)
        (cohort.out / "b" / "SR.nii.gz").write_bytes(b"of another run")
        original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(methods.super_resolution.method, "super_resolve_case", beside_another)
    cohort.run(code=1)
    assert "b/SR.nii.gz exists already: --overwrite replaces it" in capsys.readouterr().err
    assert (cohort.out / "b" / "SR.nii.gz").read_bytes() == b"of another run"


def test_an_input_that_vanishes_is_one_failed_case(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort.add("a", "b", "c")
    original = methods.super_resolution.method.super_resolve_case

    def taking_away(path: Path, *rest: object) -> None:
        (cohort.folder / "b.nii.gz").unlink(missing_ok=True)
        original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(methods.super_resolution.method, "super_resolve_case", taking_away)
    cohort.run(code=1)
    err = capsys.readouterr().err
    assert "error: 1 of 3 cases failed:" in err
    assert "Traceback" not in err
    assert cohort.finished() == ["a", "c"]


@pytest.mark.parametrize("changed", [False, True], ids=["plain", "turned into another error"])
def test_an_interrupt_ends_the_whole_cohort(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    cohort.add("a", "b", "c")
    begun: list[str] = []

    def interrupted(path: Path, *rest: object) -> None:
        begun.append(path.name)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if changed:
                raise RuntimeError("release unlocked lock")  # noqa: B904 - as Python's locks do
            raise

    monkeypatch.setattr(methods.super_resolution.method, "super_resolve_case", interrupted)
    cohort.run(code=130)
    assert len(begun) == 1


def test_a_case_that_is_all_but_finished_is_finished_before_a_stop(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort.add("a", "b")
    original = methods.super_resolution.method.upscale_volume

    def late(*settings: Any) -> Any:
        made = original(*settings)
        os.kill(os.getpid(), signal.SIGINT)
        return made

    monkeypatch.setattr(methods.super_resolution.method, "upscale_volume", late)
    cohort.run(code=130)
    assert cohort.finished() == ["a"]
    assert not list(cohort.out.rglob("*.partial*"))


def test_resume_does_what_is_left_of_a_cohort(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort.add("a", "b")
    broken = cohort.folder / "b.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    cohort.run(code=1)
    before = {p.name: p.stat().st_mtime_ns for p in (cohort.out / "a").iterdir()}
    broken.write_bytes(whole)
    capsys.readouterr()
    cohort.run("--resume")
    assert f"{cohort.out / 'a' / 'SR.nii.gz'} is finished" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in (cohort.out / "a").iterdir()} == before
    first, second = cohort.results("a", "b")
    assert first == second


def test_results_of_another_part_are_not_in_the_way(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort.add("a", "b", "c")
    cohort.run("--num_parts", "2", "--part_id", "0")
    assert cohort.finished() == ["a", "c"]
    cohort.run("--num_parts", "2", "--part_id", "1")
    assert cohort.finished() == ["a", "b", "c"]
    capsys.readouterr()
    cohort.run("--num_parts", "2", "--part_id", "1", code=2)
    assert "exists already: --overwrite replaces it" in capsys.readouterr().err


def test_a_part_without_a_case_has_nothing_to_do(cohort: Cohort) -> None:
    cohort.add("a")
    cohort.run("--num_parts", "2", "--part_id", "1")
    assert not cohort.out.exists()


@pytest.mark.slow
def test_torchruns_processes_share_a_cohort_and_wait_for_each_other(cohort: Cohort) -> None:
    """One process fails a case at once; the other's are done all the same."""
    cohort.add("a", "c", "d")
    (cohort.folder / "b.nii.gz").write_bytes(b"not a volume")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(ROOT / "medicaltest.py"), *cohort.words()],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, encoding="utf-8",
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "error: 1 of 2 cases failed:" in done.stderr
    assert done.stdout.count("this job did 2 of 4 cases") == 2
    assert cohort.finished() == ["a", "c", "d"]
    first, second, third = cohort.results("a", "c", "d")
    assert first == second == third
