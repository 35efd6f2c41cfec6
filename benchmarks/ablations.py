"""What each loss and each change of the network is worth on the phantom, at equal time.

    python -m benchmarks.ablations --out FOLDER [--minutes 20] [--seeds 3] [--only NAME ...]

Every variant trains for the same wall time on the same patients, narrow enough for a CPU, once for
each seed: one core a run, as many runs at once as there are cores. Then all are scored by
phantomtest on the validation patients, and their means over the seeds printed. A run that has its
model already is not trained again, so a stopped benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from queue import Queue

import numpy as np

from benchmarks.printed_tables import run_benchmark
from data.phantom.anatomy.disease import DISEASES
from data.phantom.pair import PairPlan, write_pair
from util.run_record import PROJECT_FOLDER

CLINICAL_SEEDS, MICRO_SEEDS = range(101, 106), range(201, 206)  # no patient in both domains
WINDOWS = "micro=2500:12250"  # the micro scanner's units of the clinical window
MEASURES = (
    "consistency", "psnr", "ssim", "resolution", "vessels_f1", "septa_f1", "flip", "noise_gain",
)  # fmt: skip
NARROW = [
    "--ngf", "16", "--ndf", "16", "--batch_size", "1", "--clinical_patch_size", "32",
    "--lr", "2e-4", "--ema", "0.99", "--precision", "bf16",
]  # fmt: skip
NO_FOUR_PART = [
    "--lambda_downsample_loss", "0", "--lambda_upsample_loss", "0",
    "--lambda_clinical_ssim", "0", "--lambda_micro_ssim", "0",
]  # fmt: skip
NO_UNPAIRED = [
    *NO_FOUR_PART, "--lambda_G_A", "0", "--lambda_G_B", "0", "--lambda_A", "0",
    "--lambda_B", "0", "--lambda_identity", "0",
]  # fmt: skip
NEW_NETWORK = ["--norm", "none", "--skip", "cubic", "--init_icnr"]
# Standard kernel and full dose of data/phantom/scanners.py: 0.44 / 0.42 mm / 0.5 mm, 20.5 HU / 750.
SCANNER = ["--pair_blur", "2.1", "--pair_noise", "0.027"]
PAIRED = ["--dataset_mode", "paired", *NO_UNPAIRED, "--lambda_supervised", "1"]
VARIANTS: dict[str, list[str]] = {
    "paper": [],
    "without the four-part loss": NO_FOUR_PART,
    "without downsample": ["--lambda_downsample_loss", "0"],
    "without upsample": ["--lambda_upsample_loss", "0"],
    "without clinical_ssim": ["--lambda_clinical_ssim", "0"],
    "without micro_ssim": ["--lambda_micro_ssim", "0"],
    "without identity": ["--lambda_identity", "0"],
    "plain CycleGAN": [*NO_FOUR_PART, "--lambda_identity", "0"],
    "paper, ICNR": ["--init_icnr"],
    "no norm, skip": NEW_NETWORK,
    "no norm, skip, pseudo-pairs too": [*NEW_NETWORK, "--lambda_pair", "5", *SCANNER],
    "pseudo-pairs, adversarial": [
        *NEW_NETWORK,
        *NO_UNPAIRED,
        "--lambda_G_A",
        "0.1",
        "--netD",
        "n_layers",
        "--n_layers_D",
        "2",
        "--micro_mix",
        "0",
        "--lambda_pair",
        "5",
        *SCANNER,
    ],
    "pseudo-pairs alone": [*NEW_NETWORK, *NO_UNPAIRED, "--lambda_pair", "5", *SCANNER],
    "pseudo-pairs alone, scanner unknown": [*NEW_NETWORK, *NO_UNPAIRED, "--lambda_pair", "5"],
    "supervised": [*NEW_NETWORK, *PAIRED],
    "supervised, published network": PAIRED,
}


def patients(folder: Path, seeds: range, processes: int) -> list[Path]:
    """Phantom patients of all kinds in turn, made where they are missing."""
    kinds = list(DISEASES)
    folders = []
    for number, seed in enumerate(seeds):
        plan = PairPlan(seed, DISEASES[kinds[number % len(kinds)]])
        folders.append(write_pair(folder / f"seed{seed}", plan, processes))
    return folders


def train(label: str, words: list[str], out: Path, minutes: float, core: int) -> Path:
    """Train one run for some minutes on one core; returns its checkpoint."""
    folder = label.replace(",", "").replace(" ", "_")
    latest = out / "checkpoints" / folder / "latest.pt"
    trained = out / f"{folder}.trained"  # for all of its minutes
    if trained.exists():
        return latest
    command = [
        "taskset", "-c", str(core), sys.executable, "train.py", "--preset", "paper",
        "--name", folder,
        "--checkpoints_dir", str(out / "checkpoints"), "--num_threads", "0", "--no_html",
        "--niter", "1000", "--niter_decay", "0", "--lr_policy", "constant",
        "--batch_num", "400", "--save_latest_freq", "1000000", "--overwrite",
        *NARROW, *words,
    ]  # fmt: skip
    log = out / f"{folder}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_FOLDER,
            stdout=stream,
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            process.wait(timeout=60 * minutes)
            sys.exit(f"{label} did not train for {minutes:g} minutes: see {log}")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # saves after the step
            process.wait()
    if not latest.exists():
        sys.exit(f"{label} left no model: see {log}")
    trained.touch()
    return latest


def train_all(jobs: Sequence[tuple[str, list[str]]], out: Path, minutes: float) -> list[str]:
    """Train (label, words of train.py), one a core at once; LABEL=CHECKPOINT each."""
    free: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0)):
        free.put(core)

    def run(job: tuple[str, list[str]]) -> str:
        label, words = job
        core = free.get()
        print(f"training {label} on core {core} for {minutes:g} minutes", flush=True)
        try:
            return f"{label}={train(label, words, out, minutes, core)}"
        finally:
            free.put(core)

    with ThreadPoolExecutor(free.qsize()) as pool:
        return list(pool.map(run, jobs))


def score(models: Sequence[str], out: Path, count: int) -> Path:
    """Score LABEL=CHECKPOINT on so many validation patients; returns the file of scores."""
    command = [
        sys.executable, "medicaltest.py", "--method", "phantomtest", "--checkpoints", *models,
        "--results_dir", str(out / "scores"), "--patients", str(count), "--overwrite",
        "--patient_set", "validation",
    ]  # fmt: skip
    subprocess.run(command, cwd=PROJECT_FOLDER, check=True)
    return out / "scores" / "phantom_scores.json"


def print_means(scores: Path, names: Sequence[str]) -> None:
    """A row a name: mean of each measure over its seeds, with the lowest and the highest."""
    told = json.loads(scores.read_text(encoding="utf-8"))["all"]
    print("\n| variant | " + " | ".join(MEASURES) + " |\n" + "|---" * (len(MEASURES) + 1) + "|")
    for name in names:
        seeds = [row for label, row in told.items() if label.rpartition(", seed ")[0] == name]
        cells = []
        for measure in MEASURES:
            values = [row[measure]["mean"] for row in seeds]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main(words: list[str]) -> None:
    """Train all variants, then score them together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--patients", type=int, default=10, help="that are scored")
    chosen = parser.parse_args(words)
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    processes = os.cpu_count() or 1
    seen = patients(out / "patients", CLINICAL_SEEDS, processes)
    others = patients(out / "patients", MICRO_SEEDS, processes)
    clinical = [str(folder / "clinical.nii") for folder in seen]
    # Seed by seed, so that a benchmark that is stopped has whole ones.
    jobs = []
    for seed, name in product(range(chosen.seeds), chosen.only):
        paired = "paired" in VARIANTS[name]
        micro = [str(folder / "micro.nii") for folder in (seen if paired else others)]
        words = [*VARIANTS[name], "--seed", str(seed), "--windows", WINDOWS]
        words += ["--all_clinical_paths", *clinical, "--all_micro_paths", *micro]
        jobs.append((f"{name}, seed {seed}", words))
    models = train_all(jobs, out, chosen.minutes)
    print_means(score(models, out, chosen.patients), chosen.only)


if __name__ == "__main__":
    run_benchmark(main)
