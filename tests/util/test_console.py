"""Streams that fail by nothing, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
PROGRAM = """
import sys, time
from util.errors import UserError, run_command_line
from util.interrupt import StopRequest

def main(words):
    with StopRequest() as stop:
        for number in range(400):
            print(f"line {number} " + "x" * 500)
            if stop.requested is not None:
                break
    print("caf\\udce9 \\u2026 \\u80ba")
    open(words[0], "w").write(f"{number} {stop.requested and stop.requested.name}")
    raise UserError("caf\\udce9\\nin two lines: give \\u80ba")

sys.exit(run_command_line(main, sys.argv[1:]))
"""


def start(folder: Path, **settings: object) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", PROGRAM, str(folder / "done")]
    return subprocess.Popen(words, cwd=ROOT, **settings)  # type: ignore[call-overload]


def test_a_reader_that_leaves_asks_the_program_to_stop(tmp_path: Path) -> None:
    """`train.py | head`: what there is gets saved."""
    process = start(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 2
    assert told == "error: caf\\udce9\\nin two lines: give 肺\n"
    number, signal_name = (tmp_path / "done").read_text().split()
    assert int(number) < 399
    assert signal_name == "SIGTERM"


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_disk_loses_lines_alone(tmp_path: Path) -> None:
    with FULL.open("wb") as full:
        process = start(tmp_path, stdout=full, stderr=full)
        assert process.wait() == 2
    assert (tmp_path / "done").read_text() == "399 None"


def test_a_terminal_that_knows_ascii_alone_shows_escapes(tmp_path: Path) -> None:
    variables = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = start(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables)
    out, err = process.communicate()
    assert out.decode("ascii").splitlines()[-1] == "caf\\udce9 \\u2026 \\u80ba"
    assert err.decode("ascii") == "error: caf\\udce9\\nin two lines: give \\u80ba\n"


def test_what_a_terminal_would_act_on_is_shown(tmp_path: Path) -> None:
    """Names of files may hold anything; progress bars return and go up."""
    program = "from util.console import make_streams_last\nmake_streams_last()\n"
    program += (
        r"print('\x1b[31mred\x07 \u202egnp.exe \x9b \ta\rb', end=''); print('\r\n\x1b[A', end='')"
    )
    words = [sys.executable, "-c", program]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    assert answer.stdout.decode() == "\\x1b[31mred\\x07 \\u202egnp.exe \\x9b \ta\rb\r\n\x1b[A"


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_takes_nothing_and_stops_nothing(
    tmp_path: Path, closed: str
) -> None:
    bar = "def main(words):\n    list(progress(range(2), 'bar'))\n"
    program = "from util.progress import progress\n" + PROGRAM.replace("def main(words):\n", bar)
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    command = f'exec "$0" "$1" "$2" {closed}'
    words = ["bash", "-c", command, sys.executable, str(script), str(tmp_path / "done")]
    answer = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert answer.returncode == 2
    assert (tmp_path / "done").read_text() == "399 None"
    if "2>" not in closed:
        assert answer.stderr.decode().splitlines()[-1].startswith("error: caf")


def test_lines_reach_a_file_at_once(tmp_path: Path) -> None:
    program = "import sys, time\nfrom util.console import make_streams_last\nmake_streams_last()\n"
    program += "print('begun')\ntime.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_streams_that_a_test_has_replaced_stay(capsys: pytest.CaptureFixture[str]) -> None:
    from util.console import make_streams_last

    before = sys.stdout, sys.stderr
    make_streams_last()
    assert (sys.stdout, sys.stderr) == before
