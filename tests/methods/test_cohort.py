from __future__ import annotations

import weakref
from pathlib import Path

import pytest
from option_helpers import evaluation_options

from methods.cohort import own_share, run_cases
from util.errors import UserError

CASES = [(Path(f"{name}.nii"), Path("results") / name) for name in "abcde"]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_parts_and_processes_share_all_cases_without_overlap(
    monkeypatch: pytest.MonkeyPatch, parts: int, processes: int
) -> None:
    shares = []
    for part in range(parts):
        for rank in range(processes):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(processes))
            shares.append(own_share(range(23), parts, part))
    assert sorted(item for share in shares for item in share) == list(range(23))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_failing_case_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def work(path: Path, folder: Path) -> None:
        if path.name == "b.nii":
            raise UserError("b.nii is truncated: copy it again")
        done.append((path, folder))

    assert run_cases(evaluation_options(), CASES, work) == 1
    assert done == [CASES[0], *CASES[2:]]
    out, err = capsys.readouterr()
    assert "case 2 of 5: b.nii" in out
    lines = err.splitlines()
    assert lines[-2:] == [
        "error: 1 of 5 cases failed:",
        "  b.nii: b.nii is truncated: copy it again",
    ]
    assert "Traceback" not in err


def test_a_fault_of_the_program_shows_its_traceback_and_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = []

    def work(path: Path, folder: Path) -> None:
        if path.name == "a.nii":
            raise KeyError("unexpected")
        done.append(path)

    assert run_cases(evaluation_options(), CASES, work) == 1
    assert len(done) == 4
    assert "Traceback" in capsys.readouterr().err


def test_a_single_case_raises_its_own_error() -> None:
    def work(path: Path, folder: Path) -> None:
        raise UserError("no lung")

    with pytest.raises(UserError, match="no lung"):
        run_cases(evaluation_options(), CASES[:1], work)


def test_ctrl_c_stops_all() -> None:
    def work(path: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cases(evaluation_options(), CASES, work)


def test_a_part_does_its_share_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    options = evaluation_options("--num_parts", "2", "--part_id", "1")
    assert run_cases(options, CASES, lambda path, folder: done.append(path.stem)) == 0
    assert done == ["b", "d"]
    assert "this job did 2 of 5 cases" in capsys.readouterr().out


def test_nothing_of_a_failed_case_is_held_while_the_next_one_runs() -> None:
    class Large:
        """Stands for a failed slice's tensors."""

    held: list[weakref.ref[Large]] = []
    alive: list[bool] = []

    def work(path: Path, folder: Path) -> None:
        alive.extend(reference() is not None for reference in held)
        if path.name == "a.nii":
            large = Large()
            held.append(weakref.ref(large))
            error = UserError("no")  # the frame holds the error, and the error the frame
            raise error

    assert run_cases(evaluation_options(), CASES[:2], work) == 1
    assert alive == [False]
