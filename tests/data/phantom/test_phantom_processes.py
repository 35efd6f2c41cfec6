"""Jobs in this process and in others: same answers, clear ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from data.phantom.processes import BLAS_THREADS, run_jobs
from util.errors import UserError

PATIENCE = 120  # seconds, on a machine as busy as can be


def name_of(number: int) -> str:
    return f"job {number}"


def refuse() -> str:
    raise UserError("scan7 is broken: give another")


def threads_of_numpy() -> str:
    return os.environ.get(BLAS_THREADS, "not said")


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


@pytest.mark.parametrize("known", [None, "3"])
def test_other_processes_have_one_thread_of_numpys_and_this_one_what_it_had(
    known: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BLAS_THREADS, raising=False)
    if known is not None:
        monkeypatch.setenv(BLAS_THREADS, known)
    assert list(run_jobs([threads_of_numpy] * 2, 2)) == ["1", "1"]
    assert os.environ.get(BLAS_THREADS) == known


def test_a_dead_process_is_told() -> None:
    with pytest.raises(UserError, match="one of 2 processes ended without an answer"):
        list(run_jobs([die, partial(name_of, 1)], 2))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)]
)
def test_processes_end_with_the_first_one(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Killed outright, it cannot end them; a scheduler's signal reaches all of them."""
    program = (
        "from functools import partial\nfrom pathlib import Path\n"
        "from test_phantom_processes import linger\n"
        "from data.phantom.processes import run_jobs\n"
        "from util.errors import run_program\n"
        "def main(words):\n"
        f"    list(run_jobs([partial(linger, Path({str(tmp_path)!r}), n) for n in (1, 2)], 2))\n"
        "if __name__ == '__main__':\n"
        "    run_program(main)\n"
    )
    script = tmp_path / "first.py"
    script.write_text(program, encoding="utf-8")
    here = Path(__file__).resolve()
    places = os.pathsep.join([str(here.parents[3]), str(here.parent)])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": places},
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + PATIENCE
    while len(list(tmp_path.glob("*.pid"))) < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    _, told = process.communicate()
    assert (process.returncode, b"Traceback" in told) == (code, False)
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def linger(folder: Path, number: int) -> str:
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(10 * PATIENCE)
    return str(number)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_no_jobs() -> None:
    assert list(run_jobs([], 2)) == []
