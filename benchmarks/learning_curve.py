"""How many patients and specimens training needs: scores by their number, at equal time.

    python -m benchmarks.learning_curve --out FOLDER [--minutes 20] [--seeds 2]

As many clinical patients as specimens, no patient in both, and each run with those of the smaller
ones and more. Pseudo-pairs around the scanner that is found by comparing the two (`--scanner
auto`), the narrow network of benchmarks/ablations.py, one core a run. Scored by phantomtest on the
validation patients. A run that has its model already is not trained again, so a stopped benchmark
goes on.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path

from benchmarks.ablations import (
    NEW_NETWORK,
    NO_UNPAIRED,
    WINDOWS,
    patients,
    print_means,
    score,
    train_all,
)
from benchmarks.printed_tables import run_benchmark

COUNTS = (1, 2, 4, 8)
CLINICAL_SEEDS, MICRO_SEEDS = range(101, 109), range(201, 209)
LESSON = ["--lambda_pair", "5", "--scanner", "auto"]


def main(words: list[str]) -> None:
    """Train with each number of patients, then score all together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training for each run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--patients", type=int, default=10, help="that are scored")
    chosen = parser.parse_args(words)
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    processes = os.cpu_count() or 1
    clinical = patients(out / "patients", CLINICAL_SEEDS, processes)
    micro = patients(out / "patients", MICRO_SEEDS, processes)
    names = {count: f"{count} of each" for count in COUNTS}
    jobs = []
    for seed, count in product(range(chosen.seeds), COUNTS):
        # Another seed begins with another patient, or the first one alone would decide.
        chosen_ones = [(seed * 3 + number) % max(COUNTS) for number in range(count)]
        words = [*NEW_NETWORK, *NO_UNPAIRED, *LESSON, "--seed", str(seed), "--windows", WINDOWS]
        words += ["--all_clinical_paths", *(str(clinical[n] / "clinical.nii") for n in chosen_ones)]
        words += ["--all_micro_paths", *(str(micro[n] / "micro.nii") for n in chosen_ones)]
        jobs.append((f"{names[count]}, seed {seed}", words))
    models = train_all(jobs, out, chosen.minutes)
    print_means(score(models, out, chosen.patients), list(names.values()))


if __name__ == "__main__":
    run_benchmark(main)
