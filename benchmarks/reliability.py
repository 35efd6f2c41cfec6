"""Trainings and tests that are killed, started twice, and whose disks, inputs, readers and clocks
fail at random moments: nothing is lost, nothing is mixed, nothing is silent.

    python -m benchmarks.reliability --out FOLDER [--faults 200] [--minutes 0] [--seed 0]

After each fault what is there is looked at, and the job goes on; once it has come to its end, its
result is compared with that of a job that nothing has disturbed, bit for bit, and begun anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import torch

from benchmarks.machine import machine_line
from benchmarks.reliability_jobs import (
    TINY,
    Job,
    Started,
    start,
    start_torchrun,
    unlike_result,
    unlike_training,
    write_inputs,
)
from models.checkpoints.checkpoint import load_checkpoint
from util.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, run_program
from util.interrupt import STOPPING
from util.processes import Processes  # noqa: F401 - loaded before the forks, each of which would

LONGEST_WAIT = 6.0  # seconds before a fault
DAY = 24 * 3600.0
OVER = "is trained to its last epoch"
CLOCKS = (-400 * DAY, -DAY, DAY, 9000 * DAY)  # by how much clocks are wrong
Fault = Callable[[Job, Random, Path], str]


class LossError(Exception):
    """Something that must not happen."""


def training_job(out: Path, whole: Path) -> Job:
    """A training of ten epochs."""
    inputs = out / "inputs"
    data = (
        *("--all_clinical_paths", str(inputs / "ct.nii.gz")),
        *("--all_micro_paths", str(inputs / "micro.nii.gz")),
    )
    place = ("--checkpoints_dir", str(out / "checkpoints"), "--name", "found")
    folder = out / "checkpoints" / "found"
    return Job(
        "train",
        (*TINY, *data, *place),
        ("--continue_train", *place),
        lambda: (folder / "latest.pt").exists() or (folder / "previous.pt").exists(),
        whole,
        folder,
        inputs,
    )


def testing_job(out: Path, whole: Path, weights: Path) -> Job:
    """A volume that is super-resolved."""
    inputs, folder = out / "inputs", out / "results" / "found"
    words = (
        *("--gpu_ids", "-1", "--backend", "torch", "--checkpoint", str(weights)),
        *("--input", str(inputs / "ct.nii.gz"), "--results_dir", str(folder)),
        *("--page_mb", "0", "--max_memory", "1"),
    )
    resumed = (*words, "--resume")
    return Job("medicaltest", words, resumed, folder.exists, whole, folder, inputs)


def check_words(started: Started, code: int, allowed: set[int]) -> None:
    """Refuse a traceback, an exit code that means nothing here, and an error of several lines."""
    said = started.log.read_text("utf-8", "replace").replace("\r", "\n")
    tail = said[-1500:]
    if OVER in said:
        return
    if "Traceback" in said or code not in allowed:
        raise LossError(f"exit code {code}, expected one of {sorted(allowed)}: {tail}")
    if code == EXIT_USER_ERROR:
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if len(errors) != 1:
            raise LossError(f"{len(errors)} lines of error: {tail}")


def signalled(receivers: str, number: signal.Signals) -> Fault:
    """A signal to the first process, to its group, or to a loader process."""

    def fault(job: Job, chance: Random, log: Path) -> str:
        started = start(job.program, job.next_words(), log)
        wait(started, chance)
        targets = started.children() if receivers == "loader" else [started.pid]
        if started.is_running() and targets:
            send = os.killpg if receivers == "group" else os.kill
            with suppress(ProcessLookupError):  # it has just come to its end
                send(targets[0], number)
        code = started.wait()
        allowed = {0, -number} if number == signal.SIGKILL else {0, EXIT_INTERRUPTED, -number}
        check_words(started, code, {0, EXIT_USER_ERROR} if receivers == "loader" else allowed)
        if code == EXIT_INTERRUPTED and job.program == "train":
            check_step(started, job)
        return f"{number.name} to the {receivers}"

    fault.__name__ = f"{number.name} to the {receivers}"
    return fault


def check_step(started: Started, job: Job) -> None:
    """Refuse a stop that has not saved its last step."""
    said = started.log.read_text("utf-8", "replace")
    if "stopped after step" not in said:
        return  # before the first one
    step = int(said.split("stopped after step ")[1].split()[0])
    saved = load_checkpoint(job.folder / "latest.pt")["position"]["step"]
    if saved != step:
        raise LossError(f"stopped after step {step}, saved {saved}")


def reader_leaves(job: Job, chance: Random, log: Path) -> str:
    """`| head`."""
    reading, writing = os.pipe()
    started = start(job.program, job.next_words(), log, output=writing)
    os.close(writing)
    os.read(reading, 10)
    wait(started, chance)
    os.close(reading)
    check_words(started, started.wait(), {0, EXIT_INTERRUPTED, -signal.SIGTERM})
    return "a reader that leaves"


def full_disk(job: Job, chance: Random, log: Path) -> str:
    """A file that may not grow any further."""
    largest = chance.randrange(1000, 400_000)
    started = start(job.program, job.next_words(), log, largest_file=largest)
    code = started.wait()
    if log.stat().st_size < largest:
        check_words(started, code, {0, EXIT_USER_ERROR})
    elif code not in (0, EXIT_USER_ERROR):  # the log was full, too, so the line found no room
        raise LossError(f"exit code {code} on a full disk")
    return "a full disk"


def full_terminal(job: Job, chance: Random, log: Path) -> str:
    """A log that takes no more lines, and then a kill."""
    output = os.open("/dev/full", os.O_WRONLY)
    started = start(job.program, job.next_words(), log, output=output)
    os.close(output)
    wait(started, chance)
    if started.is_running():
        os.kill(started.pid, signal.SIGKILL)
    check_words(started, started.wait(), {0, -signal.SIGKILL})
    return "a full log"


def vanished_inputs(job: Job, chance: Random, log: Path) -> str:
    """Inputs that are moved away while they are read, and come back later."""
    started = start(job.program, job.next_words(), log)
    wait(started, chance)
    away = job.inputs.with_name("away")
    job.inputs.rename(away)
    try:
        time.sleep(chance.uniform(0, 2))
        if started.is_running() and job.program == "train":
            os.kill(started.pid, signal.SIGTERM)
        code = started.wait()
    finally:
        away.rename(job.inputs)
    check_words(started, code, {0, EXIT_USER_ERROR, EXIT_INTERRUPTED, -signal.SIGTERM})
    return "vanished inputs"


def wrong_clock(job: Job, chance: Random, log: Path) -> str:
    """A clock that is days or years off, in the process and on its files, and then a kill."""
    started = start(job.program, job.next_words(), log, clock=chance.choice(CLOCKS))
    wait(started, chance)
    if started.is_running():
        os.kill(started.pid, signal.SIGKILL)
    check_words(started, started.wait(), {0, -signal.SIGKILL})
    for path in job.folder.glob("*"):
        moment = time.time() + chance.choice(CLOCKS)
        os.utime(path, (moment, moment))
    return "a wrong clock"


def two_at_once(job: Job, chance: Random, log: Path) -> str:
    """The same call twice; one of them is refused, or comes when the other has finished."""
    words = job.next_words()
    first = start(job.program, words, log)
    time.sleep(chance.uniform(0, LONGEST_WAIT / 2))
    second = start(job.program, words, log.with_suffix(".second"))
    codes = [one.wait() for one in (second, first)]
    for started, code in zip((second, first), codes, strict=True):
        check_words(started, code, {0, EXIT_USER_ERROR})
    said = [one.log.read_text("utf-8", "replace") for one in (first, second)]
    if all("is in use by" in words for words in said):
        raise LossError("each was refused for the other")
    return "two at once"


def torchrun(job: Job, chance: Random, log: Path) -> str:
    """Two processes in a folder of their own, stopped by a signal to torchrun or to the group."""
    folder = job.folder.with_name("two")
    shutil.rmtree(folder, ignore_errors=True)
    words = [*job.words, "--name", "two"]
    started = start_torchrun(words, log)
    while not (folder / "latest.pt").exists() and started.is_running():
        time.sleep(0.05)
    number = chance.choice(STOPPING)
    (os.killpg if chance.random() < 0.5 else os.kill)(started.pid, number)
    started.wait()
    end = time.monotonic() + 60
    while "stopped after step" not in (said := log.read_text("utf-8", "replace")):
        if time.monotonic() > end:
            raise LossError(f"{number.name} to torchrun stopped nothing: {said[-1500:]}")
        time.sleep(0.1)
    check_step(started, Job("train", (), (), bool, folder, folder, folder))
    return f"{number.name} to torchrun"


def wait(started: Started, chance: Random) -> None:
    """Until a random moment, or until the process has ended."""
    end = time.monotonic() + chance.uniform(0, LONGEST_WAIT)
    while time.monotonic() < end and started.is_running():
        time.sleep(0.01)


STOPS = [signalled(receivers, one) for receivers in ("first process", "group") for one in STOPPING]
KILLS = [signalled(receivers, signal.SIGKILL) for receivers in ("first process", "group")]
OTHERS = [reader_leaves, full_disk, full_terminal, vanished_inputs, wrong_clock, two_at_once]
LOADERS = [signalled("loader", number) for number in (signal.SIGKILL, signal.SIGBUS)]
FAULTS: dict[str, list[Fault]] = {
    "medicaltest": [*STOPS, *KILLS, *KILLS, *OTHERS],
    "train": [*STOPS, *KILLS, *KILLS, *OTHERS, *LOADERS, torchrun],
}


def finish(job: Job, log: Path) -> None:
    """Let the job come to its end and hold it against what nothing has disturbed."""
    started = start(job.program, job.next_words(), log)
    code = started.wait()
    said = log.read_text("utf-8", "replace")
    if code not in (0, EXIT_USER_ERROR) or (code and OVER not in said):
        raise LossError(f"going on ended with exit code {code}: {said[-1500:]}")
    unlike = unlike_training if job.program == "train" else unlike_result
    if (difference := unlike(job.whole, job.folder)) is not None:
        raise LossError(f"{difference} is not that of an undisturbed run")
    left = [path.name for path in job.folder.rglob("*") if path.name == ".lock"]
    if left:
        raise LossError("a lock stayed behind")
    shutil.rmtree(job.folder)


def is_over(log: Path) -> bool:
    """Whether the last call has come to the job's end."""
    said = log.read_text("utf-8", "replace")
    return any(words in said for words in (OVER, "trained: ", "wrote ", "nothing to resume"))


def undisturbed(job: Job, log: Path) -> None:
    """Let the job run alone, and keep what it leaves."""
    started = start(job.program, job.words, log)
    if (code := started.wait()) != 0:
        raise UserError(f"the undisturbed run ended with exit code {code}: {log}")
    job.whole.parent.mkdir(parents=True, exist_ok=True)
    job.folder.rename(job.whole)


def main(arguments: list[str]) -> int:
    """Run the faults; returns 0 where nothing was lost, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder, made anew")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=0.0, help="at least so long")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    out, chance = chosen.out.absolute(), Random(chosen.seed)
    if out.exists():
        raise UserError(f"{out} exists already: give another --out")
    os.environ["SR_CYCLEGAN_CACHE"] = str(out / "cache")
    torch.set_num_threads(1)
    write_inputs(out / "inputs", chosen.seed)
    log = out / "log.txt"
    training = training_job(out, out / "whole_training")
    undisturbed(training, log)
    weights = training.whole / "latest.pt"
    testing = testing_job(out, out / "whole_result", weights)
    undisturbed(testing, log)
    jobs, started, counts = (training, testing), time.monotonic(), Counter[str]()
    print(machine_line(torch.device("cpu"), chosen.seed))
    while counts.total() < chosen.faults or time.monotonic() - started < 60 * chosen.minutes:
        job = chance.choice(jobs)
        fault = chance.choice(FAULTS[job.program])
        try:
            counts[fault(job, chance, log)] += 1
            if is_over(log) or chance.random() < 0.1:
                finish(job, log)
        except (LossError, TimeoutError) as error:
            print(f"LOST after {counts.total()} faults, {job.program}, {fault.__name__}: {error}")
            return 1
        if sys.stderr.isatty() or counts.total() % 20 == 0:
            print(f"{counts.total()} faults", file=sys.stderr)
    for job in jobs:
        if job.begun():
            finish(job, log)
    for name, count in sorted(counts.items()):
        print(f"{count:>5}  {name}")
    minutes = (time.monotonic() - started) / 60
    print(f"{counts.total()} faults in {minutes:.0f} minutes: nothing lost")
    return 0


if __name__ == "__main__":
    run_program(main)
