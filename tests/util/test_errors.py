from __future__ import annotations

import signal
import sys
import threading

import pytest

from util.errors import (
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    UserError,
    run_command_line,
    run_program,
    was_interrupted,
)
from util.interrupt import STOPPING


def test_the_commands_own_code_is_returned() -> None:
    assert run_command_line(lambda words: len(words), ["a", "b", "c"]) == 3
    assert run_command_line(lambda words: None, []) == 0


def test_a_user_error_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main(words: list[str]) -> int:
        raise UserError(f"{words[0]} is wrong: give another")

    assert run_command_line(main, ["x.nii"]) == EXIT_USER_ERROR == 2
    assert capsys.readouterr() == ("", "error: x.nii is wrong: give another\n")


def test_debug_shows_the_traceback_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    def main(words: list[str]) -> int:
        try:
            raise OSError("disk")
        except OSError as error:
            raise UserError("cannot read") from error

    assert run_command_line(main, ["--debug"]) == EXIT_USER_ERROR
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "OSError: disk" in err
    assert err.endswith("error: cannot read\n")


def test_a_missing_package_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(words: list[str]) -> int:
        raise ModuleNotFoundError(f"No module named {words[0]!r}", name=words[0])

    assert run_command_line(main, ["SimpleITK.extra"]) == EXIT_USER_ERROR
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "lacks the package SimpleITK: type `source .venv/bin/activate`" in err
    for own in ("data.nothing", "train"):  # a fault of the program
        with pytest.raises(ModuleNotFoundError):
            run_command_line(main, [own])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory"),
         "the system refused: No such file or directory"),
        (OSError(24, "Too many open files", "/data/ct.nii"),
         "the system refused /data/ct.nii: Too many open files"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object", name="torch"),
         "cannot load torch (libtorch_cpu.so: failed to map segment from shared object): allow"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def refused(arguments: list[str]) -> None:
        raise error

    assert run_command_line(refused, []) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {line}")


def test_a_program_leaves_in_order_when_a_scheduler_stops_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {number: signal.getsignal(number) for number in STOPPING}
    monkeypatch.setattr(sys, "argv", ["program", "word"])

    def stopped(words: list[str]) -> None:
        assert words == ["word"]
        signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(SystemExit) as leaving:
            run_program(stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_ends_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main(words: list[str]) -> int:
        raise KeyboardInterrupt

    assert run_command_line(main, []) == EXIT_INTERRUPTED == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_that_a_lock_turned_into_another_error_is_one_still(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As threading.Condition does: its `with` lets go of a lock that is not held any more."""

    def main(words: list[str]) -> int:
        try:
            raise KeyboardInterrupt
        finally:
            threading.Lock().release()

    assert run_command_line(main, []) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    assert not was_interrupted(None)


class OutOfMemoryError(RuntimeError):
    """Named as torch.cuda's, which is known by its name so that torch need not be loaded."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more lines"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_out_of_memory_is_one_line_that_names_what_helps(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def main(words: list[str]) -> int:
        raise error

    assert run_command_line(main, []) == EXIT_USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (")
    assert "smaller --batch_size" in err
    assert err.count("\n") == 1
    assert run_command_line(main, ["--debug"]) == EXIT_USER_ERROR
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [ValueError("bug"), SystemExit(5)])
def test_faults_of_the_program_pass_through(fault: BaseException) -> None:
    def main(words: list[str]) -> int:
        raise fault

    with pytest.raises(type(fault)):
        run_command_line(main, [])


def test_long_paths_are_shortened_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    path = f"/data/{'a_folder/' * 40}case_7/ct.nii.gz"

    def main(words: list[str]) -> int:
        raise UserError(f"{path} does not exist: check the path")

    assert run_command_line(main, []) == EXIT_USER_ERROR
    told = capsys.readouterr().err
    assert told == "error: /data/../case_7/ct.nii.gz does not exist: check the path\n"
