"""A digital lung phantom: the same anatomy seen by a clinical CT and by a micro-CT.

No free lung micro-CT lies beside a free clinical CT, so this stands in for both in the quick start,
the tests and the benchmark. It is made of alveolar walls, vessels, airways, a chest wall, and
disease where asked for, all given as functions of position (data/phantom/anatomy/patient.py), and
of two scanners that average, blur and add noise (data/phantom/scanners.py). Both can look at the
same patient, so that there is a truth.

    python -m data.phantom --out DIR --seed 3 --disease emphysema    a patient with its truth
    python -m data.phantom --out DIR --training                      volumes to train on
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from data.phantom.anatomy.disease import DISEASES
from data.phantom.case import FIRST_SEEDS
from data.phantom.pair import DEFAULT_SIZE, PairPlan, write_pair
from data.phantom.scanners import ClinicalScanner
from data.phantom.training_set import (
    SCALES,
    generate_phantom,
)
from util.errors import UserError, run_program

SMALLEST, LARGEST = 0.2, 5.0  # mm of pixels and slices


def main(arguments: list[str]) -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m data.phantom", description="Write the digital lung phantom."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--scale",
        type=int,
        default=8,
        help="clinical pixel / micro voxel: 2, 4, 8, 16 (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the patient (%(default)s)")
    parser.add_argument(
        "--disease", choices=DISEASES, default="healthy", help="of the patient (%(default)s)"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        default=DEFAULT_SIZE,
        metavar=("X", "Y", "Z"),
        help="clinical voxels (64 64 16: 32 x 32 x 8 mm)",
    )
    parser.add_argument(
        "--pixel",
        type=float,
        default=ClinicalScanner.pixel,
        help="of the clinical scanner in mm, 0.4 to 0.9 on real ones (%(default)s)",
    )
    parser.add_argument(
        "--thickness",
        type=float,
        default=ClinicalScanner.slice_thickness,
        help="of its slices in mm (%(default)s)",
    )
    parser.add_argument(
        "--training",
        action="store_true",
        help="write the volumes that train.py makes without data, of several patients",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="at once (%(default)s)"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    chosen = parser.parse_args(arguments)
    start = time.monotonic()
    refuse_numbers(chosen)
    if not chosen.training:
        scanner = ClinicalScanner(chosen.pixel, chosen.thickness)
        size, disease = tuple(chosen.size), DISEASES[chosen.disease]
        plan = PairPlan(chosen.seed, disease, chosen.scale, size, scanner)
        write_pair(chosen.out, plan, chosen.processes)
        print(
            f"{chosen.disease} phantom, seed {chosen.seed}, in {chosen.out}: clinical.nii, "
            f"micro.nii, truth.nii, labels.nii.gz ({time.monotonic() - start:.0f} s)"
        )
        return

    def report(done: int, total: int, name: str) -> None:
        print(f"{done}/{total} {name} ({time.monotonic() - start:.0f} s)", flush=True)

    paths = generate_phantom(chosen.out, chosen.scale, report, chosen.seed, chosen.processes)
    print(f"phantom for {chosen.scale}x in {paths.folder}")


def refuse_numbers(chosen: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        UserError: says which.
    """
    if chosen.scale not in SCALES:
        raise UserError(f"--scale {chosen.scale}: expected one of {', '.join(map(str, SCALES))}")
    if chosen.seed < 0:
        raise UserError(f"--seed {chosen.seed}: expected 0 or more")
    if chosen.processes < 1:
        raise UserError(f"--processes {chosen.processes}: expected 1 or more")
    for name in ("pixel", "thickness"):
        value = getattr(chosen, name)
        if not SMALLEST <= value <= LARGEST:
            raise UserError(
                f"--{name} {value:g}: expected {SMALLEST:g} to {LARGEST:g} mm, as clinical "
                "scanners have"
            )
        if chosen.training and value != ClinicalScanner.pixel:
            raise UserError(f"--training writes voxels of 0.5 mm: leave --{name} out")
    if chosen.training and chosen.seed in (first // 100 for first in FIRST_SEEDS.values()):
        raise UserError(
            f"--training --seed {chosen.seed} would write patients of the benchmark: give another"
        )
    if chosen.training and chosen.disease != "healthy":
        raise UserError("--training writes patients of several kinds: leave --disease out")


if __name__ == "__main__":
    run_program(main)
