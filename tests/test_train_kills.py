"""Training that is killed at random moments, over and over, ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from forked_programs import start_program
from run_helpers import assert_same_run
from training_helpers import TINY_RUN, write_training_data

from models.checkpoints.checkpoint import load_checkpoint

# docs/training.md asks for forty; that many take three minutes, so the suite takes fewer.
KILLS = int(os.environ.get("TRAIN_KILLS", "9"))
EPOCHS = -(-KILLS * 11 // 20)  # long enough for the last kill to come before the end
# Who gets which signal: the first process, its group (as from SLURM, `timeout` and systemd), or a
# loader process alone; and the code that training ends with.
ATTACKS = (
    ("first", signal.SIGKILL, -signal.SIGKILL),
    ("group", signal.SIGTERM, 130),
    ("loader", signal.SIGKILL, 2),
    ("first", signal.SIGUSR1, 130),
    ("group", signal.SIGKILL, -signal.SIGKILL),
    ("first", signal.SIGINT, 130),
    ("group", signal.SIGUSR2, 130),
    ("group", signal.SIGHUP, 130),
    ("loader", signal.SIGBUS, 2),  # as where /dev/shm is full
)
PATIENCE = 240.0  # seconds; only a test that fails waits so long


@pytest.mark.slow
@pytest.mark.long
def test_many_kills_leave_the_losses_and_weights_of_an_unbroken_run(tmp_path: Path) -> None:
    """Loader processes, a full pool, random penalties, a moving average: all that has a state."""
    log = tmp_path / "log.txt"
    words = (
        *TINY_RUN, *write_training_data(tmp_path / "volumes"), "--no_html",
        "--checkpoints_dir", str(tmp_path), "--num_threads", "1", "--pool_size", "2",
        "--gan_mode", "wgangp", "--ema", "0.99", "--clip_gradient", "5",
        "--batch_num", "32", "--niter", str(EPOCHS - EPOCHS // 2),
        "--niter_decay", str(EPOCHS // 2), "--save_latest_freq", "3",
    )  # fmt: skip

    def start(*more: str) -> BaseProcess:
        return start_program("train", list(more), log)

    def told() -> str:
        return log.read_text(encoding="utf-8")

    def finish(process: BaseProcess) -> None:
        process.join(PATIENCE)
        assert process.exitcode == 0, told()

    finish(start(*words, "--name", "whole"))
    folder = tmp_path / "parts"
    latest = folder / "latest.pt"
    again = ("--continue_train", "--checkpoints_dir", str(tmp_path), "--name", "parts")
    moments = random.Random(7)
    steps: list[int] = []
    for kill in range(KILLS):
        receiver, number, code = ATTACKS[kill % len(ATTACKS)]
        before = latest.stat().st_mtime_ns if latest.exists() else 0
        process = start(*(again if latest.exists() else (*words, "--name", "parts")))
        begun = time.monotonic()
        # Once it has saved, so that the kills come to an end, and then at any moment.
        while not latest.exists() or latest.stat().st_mtime_ns == before:
            assert process.is_alive(), told()
            assert time.monotonic() - begun < PATIENCE
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.3))
        assert process.pid is not None
        if receiver == "group":
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid if receiver == "first" else loader_of(process), number)
        process.join(PATIENCE)
        assert process.exitcode == code, told()
        steps.append(load_checkpoint(latest)["position"]["step"])
    whole = load_checkpoint(tmp_path / "whole" / "latest.pt")["position"]["step"]
    assert steps == sorted(steps)
    assert steps[-1] < whole  # so the last kill, too, came in the middle
    finish(start(*again))
    assert_same_run(tmp_path / "whole", folder)


def loader_of(process: BaseProcess) -> int:
    """Process id of its one loader process, which starts with the epoch."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    begun = time.monotonic()
    while not (words := children.read_text(encoding="ascii").split()):
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.005)
    (child,) = words
    return int(child)
