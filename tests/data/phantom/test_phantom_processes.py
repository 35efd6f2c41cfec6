"""Jobs in this process and in others: same answers, clear ends."""

from __future__ import annotations

import os
from functools import partial

import pytest

from data.phantom.processes import run_jobs
from util.errors import UserError


def name_of(number: int) -> str:
    return f"job {number}"


def refuse() -> str:
    raise UserError("scan7 is broken: give another")


def die() -> str:
    os._exit(3)


@pytest.mark.parametrize("processes", [1, 2])
def test_all_jobs_answer(processes: int) -> None:
    jobs = [partial(name_of, number) for number in range(3)]
    assert sorted(run_jobs(jobs, processes)) == ["job 0", "job 1", "job 2"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_user_error_keeps_its_words(processes: int) -> None:
    with pytest.raises(UserError, match="scan7 is broken: give another"):
        list(run_jobs([refuse, partial(name_of, 1)], processes))


def test_a_dead_process_is_told() -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        list(run_jobs([die, partial(name_of, 1)], 2))


def test_no_jobs() -> None:
    assert list(run_jobs([], 2)) == []
