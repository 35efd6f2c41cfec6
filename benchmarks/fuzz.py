"""Damaged inputs of every format through medicaltest.py: no traceback, no hang, nothing that looks
finished and is not.

    python -m benchmarks.fuzz --out FOLDER [--inputs 5000] [--seed 0] [--jobs 2] [--only NAME ...]

Each input is a small valid one that was damaged (benchmarks/fuzz_inputs.py), and each run a forked
process of its own with a limit on time and memory. What is found stays in FOLDER/found with the
input and what was printed. The weights are among the files that are damaged. The first input of
each kind is whole, and must be read.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tqdm import tqdm

import medicaltest
from benchmarks.fuzz_inputs import MAKERS, damage_one
from benchmarks.fuzz_judges import unlike_others
from data.windows import CLINICAL_WINDOW, WindowPolicy
from methods import registry  # noqa: F401 - loaded before the forks, each of which would
from models.checkpoints.shipped_weights import write_weights
from models.networks import SRGenerator, initialise
from util.errors import EXIT_USER_ERROR, run_command_line, run_program

SECONDS = 60  # that a run may take
BYTES = 6 << 30  # of address space
WEIGHTS = "weights"  # name of the case whose weights are damaged
WHOLE = "whole"  # what is done to the first input of each kind
OPTIONS: tuple[list[str], ...] = (
    [], [], ["--slices", "1:3"], ["--dry_run"], ["--output_format", "dicom"],
)  # fmt: skip


@dataclass
class Job:
    """One run."""

    number: int
    name: str
    damage: str
    folder: Path


def make_weights(path: Path) -> None:
    """A 2x network of two channels."""
    torch.manual_seed(0)
    generator = SRGenerator(1, 2, 1)
    initialise(generator)
    windows = WindowPolicy("window", CLINICAL_WINDOW, CLINICAL_WINDOW)
    facts = {"windows": windows.as_dict(), "dataset_mode": "unpaired", "step": 0}
    write_weights(path, generator, facts | dict.fromkeys(("training", "commit", "licence"), "none"))


def start(job: Job, originals: Path, chance: Random, damaged: bool) -> int:
    """Damage an input if so, and fork a process that reads it; returns its id."""
    case = job.folder / "case"
    shutil.copytree(originals / job.name, case)
    job.damage = damage_one(case, chance) if damaged else WHOLE
    weights = (
        case / "w.safetensors" if job.name == WEIGHTS else originals / WEIGHTS / "w.safetensors"
    )
    words = ["--input", str(originals / "nii" / "ct.nii") if job.name == WEIGHTS else str(case)]
    words += ["--checkpoint", str(weights), "--results_dir", str(job.folder / "results")]
    words += ["--cache_dir", str(job.folder / "cache"), "--gpu_ids", "-1", "--backend", "torch"]
    words += ["--region", "lung" if job.name == "nii with mask" else "all", "--page_mb", "0"]
    if damaged:
        words += chance.choice(OPTIONS)
    (job.folder / "words.json").write_text(json.dumps(words))
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with (job.folder / "printed").open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        signal.alarm(SECONDS)
        code = run_command_line(medicaltest.main, words)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def fault_of(job: Job, status: int) -> str | None:
    """What is wrong with a run that ended with this status; None for nothing."""
    printed = (job.folder / "printed").read_text(encoding="utf-8", errors="replace")
    results = job.folder / "results"
    finished = [path for path in results.rglob("SR.nii.gz") if path.is_file()]
    if os.WIFSIGNALED(status):
        ended = os.WTERMSIG(status)
        return "hang" if ended == signal.SIGALRM else f"killed by signal {ended}"
    code = os.WEXITSTATUS(status)
    if "Traceback" in printed:
        return "traceback"
    if code == EXIT_USER_ERROR:
        errors = [line for line in printed.splitlines() if line.startswith("error: ")]
        if len(errors) != 1:
            return f"{len(errors)} lines of error"
        if job.damage == WHOLE:
            return "refused"
        return "a result beside an error" if finished else None
    if code != 0:
        return f"exit code {code}"
    words = json.loads((job.folder / "words.json").read_text())
    if "--dry_run" in words:
        return None
    if not finished:
        return "success without a result"
    if "--slices" in words or job.name == WEIGHTS:
        return None
    return unlike_others(job.folder / "case", results / "clinical.nii.gz")


def main(words: list[str]) -> None:
    """Damage, run and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once")
    parser.add_argument("--only", nargs="+", choices=[*MAKERS, WEIGHTS])
    chosen = parser.parse_args(words)
    torch.set_num_threads(1)  # threads do not survive a fork
    found = chosen.out.resolve() / "found"
    found.mkdir(parents=True, exist_ok=True)
    names = chosen.only or [*MAKERS, WEIGHTS]
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        originals = Path(place) / "originals"
        originals.mkdir()
        for name, make in MAKERS.items():
            make(originals / name)
        (originals / WEIGHTS).mkdir()
        make_weights(originals / WEIGHTS / "w.safetensors")
        running: dict[int, Job] = {}
        progress = tqdm(total=chosen.inputs, unit="input")
        for number in range(chosen.inputs + chosen.jobs):
            if number < chosen.inputs:
                folder = Path(place) / f"{number}"
                folder.mkdir()
                job = Job(number, names[number % len(names)], "", folder)
                chance = Random(f"{chosen.seed} {number}")
                running[start(job, originals, chance, number >= len(names))] = job
            while running and (len(running) >= chosen.jobs or number >= chosen.inputs):
                child, status = os.wait()
                job = running.pop(child)
                fault = fault_of(job, status)
                ends[fault or f"exit code {os.WEXITSTATUS(status)}"] += 1
                if fault:
                    tqdm.write(f"{job.number} {job.name}: {fault} ({job.damage})")
                    kept = found / f"{job.number}"
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(job.folder, kept)
                    (kept / "fault").write_text(f"{job.name}: {fault} ({job.damage})\n")
                shutil.rmtree(job.folder)
                progress.update()
                if number < chosen.inputs:
                    break
    for end, count in ends.most_common():
        print(f"{count:6d} {end}")


if __name__ == "__main__":
    run_program(main)
