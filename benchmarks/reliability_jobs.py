"""Small trainings and tests in processes of their own, and whether two of them left the same."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

import medicaltest
import train
from models.checkpoints.checkpoint import load_checkpoint
from util.console import make_streams_last
from util.errors import run_command_line
from util.interrupt import terminate_like_interrupt

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 180.0  # seconds after which a process hangs
CASE_SIZE = (56, 48, 120)  # voxels; some seconds of work
# Batches of 80 kB are more than a pipe holds unread, so loader processes die in the middle of them.
TINY = (
    "--preset", "demo", "--gpu_ids", "-1", "--sampling_times", "1", "--ngf", "4", "--ndf", "2",
    "--netD", "pixel", "--clinical_patch_size", "32", "--clinical2micronetG", "sr_resnet_6blocks",
    "--micro2clinicalnetG", "resnet_6blocks", "--batch_size", "4", "--batch_num", "48",
    "--niter", "5", "--niter_decay", "5", "--lr", "1e-3", "--no_html", "--num_threads", "1",
    "--save_latest_freq", "7", "--pool_size", "4", "--ema", "0.99", "--val_slices", "-2:",
    "--gan_mode", "wgangp", "--print_freq", "5",
)  # fmt: skip


def write_inputs(folder: Path, seed: int) -> None:
    """Clinical CT with its mask, and micro-CT, of noise."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    ct = chance.normal(-800, 80, CASE_SIZE).astype(np.int16)
    affine = np.diag([0.6, 0.6, 1.0, 1.0])
    nib.save(nib.Nifti1Image(ct, affine), folder / "ct.nii.gz")
    mask = np.zeros(CASE_SIZE, np.uint8)
    mask[3:-3, 3:-3] = 1
    nib.save(nib.Nifti1Image(mask, affine), folder / "ct_mask.nii.gz")
    micro = chance.integers(100, 9000, (72, 70, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(micro, np.diag([0.3, 0.3, 1.0, 1.0])), folder / "micro.nii.gz")


@dataclass
class Job:
    """A call of train.py or medicaltest.py that is to survive.

    Attributes:
        program: train or medicaltest.
        words: of its first call.
        again: of one that goes on with it.
        begun: whether there is something to go on with.
        whole: a result that nothing has disturbed.
        folder: of its own result.
        inputs: folder of what it reads.
    """

    program: str
    words: Sequence[str]
    again: Sequence[str]
    begun: Callable[[], bool]
    whole: Path
    folder: Path
    inputs: Path

    def next_words(self) -> list[str]:
        """Of the call that is due."""
        return list(self.again if self.begun() else self.words)


@dataclass
class Started:
    """A process with its log."""

    pid: int
    log: Path

    def wait(self) -> int:
        """Exit code; a negative one is the number of a signal.

        Raises:
            TimeoutError: it hangs.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise TimeoutError(f"no end within {PATIENCE:g} s")

    def is_running(self) -> bool:
        """Whether it has not ended; its exit code stays to be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def children(self) -> list[int]:
        """Process ids of its loader processes."""
        listed = subprocess.run(
            ["ps", "--ppid", str(self.pid), "-o", "pid="], capture_output=True, check=False
        )
        return [int(word) for word in listed.stdout.split()]


def start(
    program: str,
    words: Sequence[str],
    log: Path,
    output: int | None = None,
    largest_file: int | None = None,
    clock: float = 0.0,
) -> Started:
    """Start a program in a process group of its own; torch is loaded already.

    Args:
        program: train or medicaltest.
        words: of its command line.
        log: takes what it says.
        output: descriptor that takes its standard output instead.
        largest_file: bytes after which writing a file fails, as on a full disk.
        clock: seconds by which its clock is wrong.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        os.setpgid(pid, pid)
        return Started(pid, log)
    code = 70
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output if output is not None else stream, 1)
        os.dup2(stream, 2)
        make_streams_last()
        if largest_file is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
        if clock:
            right = time.time
            time.time = lambda: right() + clock
        main = {"train": train.main, "medicaltest": medicaltest.main}[program]
        if program == "medicaltest":
            terminate_like_interrupt()
        code = run_command_line(main, list(words))
    except BaseException:  # noqa: BLE001 - the fork must never return into its parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_torchrun(words: Sequence[str], log: Path) -> Started:
    """Two processes that train together."""
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*runner, str(ROOT / "train.py"), *words],
            stdout=stream, stderr=stream, start_new_session=True, env=variables,
        )  # fmt: skip
    process.returncode = 0  # it is waited for by its id
    return Started(process.pid, log)


def same(first: Any, second: Any) -> bool:
    """Equal in every number and bit, at any depth."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return bool(first == second)


def unlike_training(whole: Path, found: Path) -> str | None:
    """What differs between two finished trainings; None for nothing."""
    states = [load_checkpoint(folder / "latest.pt") for folder in (whole, found)]
    for state in states:
        del state["options"]  # the name differs
    if not same(states[0], states[1]):
        parts = [key for key in states[0] if not same(states[0][key], states[1].get(key))]
        return f"{', '.join(parts)} of latest.pt"
    for name in ("loss_log.csv", "validation.csv"):
        if (whole / name).read_bytes() != (found / name).read_bytes():
            return name
    return None


def unlike_result(whole: Path, found: Path) -> str | None:
    """What differs between two results; None for nothing."""
    for name in ("SR.nii.gz", "clinical.nii.gz"):
        if (whole / name).read_bytes() != (found / name).read_bytes():
            return name
    facts = [json.loads((folder / "run.json").read_text("utf-8")) for folder in (whole, found)]
    return None if facts[0]["determined_by"] == facts[1]["determined_by"] else "run.json"
