"""One training process for each GPU of this machine, started and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from torch.distributed import TCPStore

from util.errors import UserError
from util.interrupt import StopRequest

PROGRAM = Path(__file__).resolve().parents[1] / "train.py"
HOST = "127.0.0.1"
GRACE = 30.0  # seconds in which the others end where one has failed, as with torchrun
POLL = 0.1  # seconds


def launch(count: int, words: list[str]) -> int:
    """Train in processes, as `torchrun --nproc_per_node COUNT train.py WORDS` does.

    A signal goes on to all of them: they save after the same step and leave.

    Args:
        count: how many.
        words: command line of each.

    Returns:
        Exit code of the first that failed, else 0.

    Raises:
        UserError: one of them was ended by a signal from outside.
    """
    # They meet here, so that the port is taken before anybody is told of it.
    meeting = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    with StopRequest(patient=True) as stop:
        processes = [start(rank, count, meeting.port, words) for rank in range(count)]
        try:
            failed = wait(processes, stop)
        finally:
            for process in processes:
                process.kill()  # nothing where it has ended
                process.wait()
    code = 0 if failed is None else processes[failed].returncode
    if code < 0:
        raise UserError(
            f"training process {failed} of {count} was ended by {signal.Signals(-code).name}, "
            "usually for want of memory: go on from the last checkpoint with --continue_train"
        )
    return code


def start(rank: int, count: int, port: int, words: list[str]) -> subprocess.Popen[bytes]:
    """Start one of them, with the words by which torchrun tells a process its place."""
    place = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": HOST, "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True,
    }  # fmt: skip
    # Threads of all processes would wait for each other.
    variables = {"OMP_NUM_THREADS": "1", **os.environ, **{k: str(v) for k, v in place.items()}}
    return subprocess.Popen([sys.executable, str(PROGRAM), *words], env=variables)


def wait(processes: list[subprocess.Popen[bytes]], stop: StopRequest) -> int | None:
    """Wait until all have ended; the number of the first that failed, None where none did."""
    failed: int | None = None
    told, end = False, float("inf")
    while True:
        codes = [process.poll() for process in processes]
        if failed is None and any(codes):
            failed = next(rank for rank, code in enumerate(codes) if code)
            end = time.monotonic() + GRACE
        if None not in codes or time.monotonic() > end:
            return failed
        if (stop.requested is not None or failed is not None) and not told:
            told = True
            for process in processes:
                process.send_signal(signal.SIGTERM)  # nothing where it has ended
        time.sleep(POLL)
