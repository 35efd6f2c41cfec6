"""medicaltest.py on a small CT, in this process and in one of its own that is stopped midway."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from method_helpers import soft_volume, write_ct
from training_helpers import write_checkpoint

import medicaltest
from util.errors import run_command_line

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "medicaltest.py")
PATIENCE = 120.0  # seconds; only a test that fails waits so long


class Inference:
    """A 2x model of random weights and a CT of twelve slices, in a folder of their own.

    Args:
        folder: for all that is read and written.

    Attributes:
        ct: the input; its mask, empty in slice 4, lies beside it, and bone lies beyond the window.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = write_checkpoint(folder / "checkpoints", "run")
        array = soft_volume((26, 22, 12))
        array[:, 3:5, 3:6] = 1500
        mask = np.zeros_like(array)
        mask[:, 4:18, 5:20] = 1
        mask[4] = 0
        self.ct = write_ct(folder / "ct.nii.gz", array, np.diag([0.7, 0.7, 1.25, 1.0]), mask)

    def words(self, name: str, *more: str, ct: Path | None = None) -> list[str]:
        """Command line that writes into the folder `name`."""
        return [
            "--gpu_ids", "-1", "--checkpoint", str(self.checkpoint), "--input", str(ct or self.ct),
            "--results_dir", str(self.folder / name), "--cache_dir", str(self.folder / "cache"),
            *more,
        ]  # fmt: skip

    def run(self, name: str, *more: str, ct: Path | None = None, code: int = 0) -> Path:
        """Run in this process; returns the folder of the results."""
        assert run_command_line(medicaltest.main, self.words(name, *more, ct=ct)) == code
        return self.folder / name

    def stop_after(
        self, slices: int, number: signal.Signals, name: str, *more: str
    ) -> tuple[int, str]:
        """Run in another process and send it a signal once so many slices are written.

        Returns:
            Exit code and what stood on standard error.
        """
        process = start(self.words(name, *more))
        until_slices(self.folder / name, slices, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
        return process.returncode, err


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start medicaltest.py with as many threads as this process has."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


def until_slices(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the journal of SR.nii.gz tells of `count` slices, or the process has ended."""
    journal = folder / "SR.nii.gz.partial.journal"
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if len(journal.read_bytes().splitlines()) >= 2 + count:  # key and header
                return
        except FileNotFoundError:
            pass
        time.sleep(0.001)


def volumes(folder: Path) -> dict[str, bytes]:
    """Bytes of every volume of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.nii*"))}
