"""What becomes of all processes where one ends; with programs that stand in for train.py."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import training.launch
from training.launch import launch
from util.errors import UserError

OTHERS_WAIT = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
def leave(number, frame):
    open(f"{sys.argv[1]}/told_{rank}", "w").close()
    sys.exit(130)
signal.signal(signal.SIGTERM, leave)
open(f"{sys.argv[1]}/ready_{rank}", "w").close()
while rank != int(sys.argv[2]) or not os.path.exists(f"{sys.argv[1]}/ready_0"):
    time.sleep(0.01)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "program.py"
    monkeypatch.setattr(training.launch, "PROGRAM", path)
    return path


def test_each_learns_its_place_and_all_meet(program: Path, tmp_path: Path) -> None:
    program.write_text(
        "import os, sys\n"
        "from torch import distributed\n"
        "distributed.init_process_group('gloo')\n"
        "rank, count = distributed.get_rank(), distributed.get_world_size()\n"
        "open(f'{sys.argv[1]}/{rank}_of_{count}_on_' + os.environ['LOCAL_RANK'], 'w').close()\n"
    )
    assert launch(2, [str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.glob("*_of_*")} == {"0_of_2_on_0", "1_of_2_on_1"}


def test_the_first_that_fails_ends_the_others_and_gives_the_code(
    program: Path, tmp_path: Path
) -> None:
    program.write_text(OTHERS_WAIT + "sys.exit(3)\n")
    assert launch(2, [str(tmp_path), "1"]) == 3
    assert [path.name for path in tmp_path.glob("told_*")] == ["told_0"]


def test_one_that_is_killed_is_named(program: Path, tmp_path: Path) -> None:
    program.write_text(OTHERS_WAIT + "os.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(UserError, match=r"^training process 1 of 2 was ended by SIGKILL, .*"):
        launch(2, [str(tmp_path), "1"])
    assert (tmp_path / "told_0").exists()


def test_one_that_does_not_leave_is_killed(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.launch, "GRACE", 0.3)
    stubborn = OTHERS_WAIT.replace("signal.signal(signal.SIGTERM, leave)", "")
    program.write_text("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + stubborn)
    with program.open("a") as stream:
        stream.write("sys.exit(3)\n")
    assert launch(2, [str(tmp_path), "1"]) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_goes_on_to_all(program: Path, tmp_path: Path, number: signal.Signals) -> None:
    program.write_text(OTHERS_WAIT)

    def send() -> None:
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("ready_*"))) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    assert launch(2, [str(tmp_path), "-1"]) == 130
    thread.join()
    assert len(list(tmp_path.glob("told_*"))) == 2
