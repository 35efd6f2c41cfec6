"""How well `--scanner auto` finds scanners that are known: three kernels at three doses.

    python -m benchmarks.scanner_estimate --micro phantom/201 ... --clinical phantom/206 ...

Both are folders of phantom patients, the first with their micro-CT. The scanners look at the truth
of the second ones, once for each patient alone and once for all together; a last row has the
patients' own clinical CT. `--ct FILE ...` tells what is found of real scans in place of all that
(lung masks `*_mask.nii.gz` beside them).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from data.opening import open_with_lung_mask
from data.phantom.case import read_case, scanner_of
from data.phantom.pair import MICRO
from data.phantom.scanners import KERNELS, ClinicalScanner
from data.scanner_estimate import (
    clinical_patches,
    estimate_scanner,
    micro_patches,
)
from data.training_data import TrainingData, all_axes, phantom_windows
from data.truth_case import TruthCase
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, WindowPolicy, parse_windows
from util.images.point_spread import HALF_OF_GAUSSIAN
from util.images.resampling import area_average

DOSES = (4.0, 1.0, 0.25)
SCALE = 8


def patches_of(case: TruthCase, scanner: ClinicalScanner, seed: int) -> np.ndarray:
    """What the estimate sees of a patient that a scanner looked at."""
    averages = np.stack([area_average(truth, case.scale) for truth in case.truth])
    seen = scanner.acquire(scanner.blur(averages), np.random.default_rng(seed))
    (patches,) = clinical_patches([(Volume(seen, np.eye(4), case.name), case.mask)])
    return patches


def main(words: list[str]) -> None:
    """Print a table of true and found point spreads and noises."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks.scanner_estimate")
    parser.add_argument("--micro", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--clinical", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--ct", type=Path, nargs="+", default=[], metavar="FILE")
    chosen = parser.parse_args(words)
    micro = [
        view
        for folder in chosen.micro
        for view in all_axes(read_volume(folder / MICRO, None), "zyx")
    ]
    windows = parse_windows(phantom_windows())["micro"]
    assert windows is not None
    policy = WindowPolicy("window", CLINICAL_WINDOW, windows)
    print(machine_line(torch.device("cpu"), 0))
    if chosen.ct:
        print("| scan | point spread, px | noise, HU |\n|---|---|---|")
    for path in chosen.ct:
        scan = open_with_lung_mask(path, None, None)
        found = estimate_scanner(
            clinical_patches([scan])[0],
            micro_patches(TrainingData([scan], micro, policy, []), SCALE),
        )
        print(f"| {path.name} | {found.point_spread:.3g} | {found.noise:.3g} |", flush=True)
    if chosen.clinical:
        table(chosen.clinical, micro, policy)


def table(folders: list[Path], micro: list[Volume], policy: WindowPolicy) -> None:
    """Print a row a scanner."""
    cases = [read_case(folder) for folder in folders]
    own = [open_with_lung_mask(folder / "clinical.nii", None, None) for folder in folders]
    fine = micro_patches(TrainingData(own, micro, policy, []), SCALE)
    print("| kernel, dose | point spread, px | found, all | each | noise, HU | found, all | each |")
    print("|---|---|---|---|---|---|---|")
    for kernel in KERNELS:
        for dose in DOSES:
            scanner = replace(scanner_of(folders[0]), kernel=kernel, dose=dose)
            seen = [patches_of(case, scanner, seed) for seed, case in enumerate(cases)]
            print(row_of(f"{kernel}, {dose:g}", scanner, seen, fine), flush=True)
    print(row_of("as rendered", scanner_of(folders[0]), clinical_patches(own), fine))


def row_of(name: str, scanner: ClinicalScanner, seen: list[np.ndarray], fine: np.ndarray) -> str:
    """Truth and estimates of one scanner."""
    found = [estimate_scanner(patches, fine) for patches in (np.concatenate(seen), *seen)]
    cells = [name]
    for true, values in (
        (
            HALF_OF_GAUSSIAN / (KERNELS[scanner.kernel].half * scanner.pixel),
            [one.point_spread for one in found],
        ),
        (scanner.deviation, [one.noise for one in found]),
    ):
        errors = [100 * (value / true - 1) for value in values]
        span = f"{min(errors[1:]):+.0f} to {max(errors[1:]):+.0f} %"
        cells += [f"{true:.3g}", f"{values[0]:.3g} ({errors[0]:+.0f} %)", span]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    run_benchmark(main)
