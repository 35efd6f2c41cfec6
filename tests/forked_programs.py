"""train.py and medicaltest.py as processes of their own, without loading torch anew in each."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

# Imported once, in the process that all others are forked from.
MODULES = [
    "torch", "torch.utils.data", "train", "medicaltest", "methods.registry", "methods.export",
    "data.datasets", "data.training_data", "training.state", "training.saver",
    "training.validation", "training.monitor.training_monitor",
]  # fmt: skip


def start_program(
    program: str,
    words: list[str],
    log: Path,
    threads: int = 1,
    variables: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start a script as a shell would, in a process group of its own, its output in a file.

    Args:
        program: train or medicaltest.
        words: of its command line.
        log: takes standard output and standard error.
        threads: of torch; sums depend on it.
        variables: of its environment, beside those there are.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    arguments = (program, list(words), str(log), threads, dict(variables or {}))
    process = context.Process(target=_run, args=arguments)
    process.start()
    return process


def _run(program: str, words: list[str], log: str, threads: int, variables: dict[str, str]) -> None:
    import torch

    from util.errors import run_command_line
    from util.interrupt import terminate_like_interrupt

    os.environ.update(variables)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    os.setpgid(0, 0)  # as a shell does with a job, so that a signal may go to all of it
    torch.set_num_threads(threads)
    # As in any process that a shell starts; loader workers then see when their parent is gone.
    multiprocessing.set_start_method("fork", force=True)
    with Path(log).open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        if program == "medicaltest":
            terminate_like_interrupt()
        sys.exit(run_command_line(importlib.import_module(program).main, words))
