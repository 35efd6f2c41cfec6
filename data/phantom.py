"""A digital lung phantom: the same anatomy seen by a clinical CT and by a micro-CT.

No free lung micro-CT lies beside a free clinical CT, so this stands in for both in the quick
start, the tests and the demonstrations. It is made of alveolar walls, vessels, airways, a
nodule and a chest wall, all given as functions of position (data/phantom_anatomy.py), and two
scanners that average, blur and add noise (data/phantom_scanners.py). It is no patient: results
on it say that the code works, not that the method does.

    python -m data.phantom --out DIR --scale 8 [--seed S]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from data.phantom_files import (
    PhantomPaths,
    PhantomPlan,
    Progress,
    default_plan,
    write_phantom,
)
from data.phantom_render import render_clinical, render_lung_mask, render_micro
from data.phantom_scanners import ClinicalScanner, MicroScanner
from util.errors import run_command_line

__all__ = [
    "ClinicalScanner",
    "MicroScanner",
    "PhantomPaths",
    "PhantomPlan",
    "default_plan",
    "generate_phantom",
    "render_clinical",
    "render_lung_mask",
    "render_micro",
    "write_phantom",
]


def generate_phantom(
    folder: Path,
    scale: int,
    progress: Progress | None = None,
    seed: int = 0,
    processes: int | None = None,
) -> PhantomPaths:
    """Make `folder` hold training and held-back phantom volumes for a magnification of `scale`.

    Writes, on first use only (some 27 MB at 8x), `clinical/` (two patients, with lung masks),
    `micro/` (two other patients), `clinical_test/` and `micro_test/` (one further patient
    each), as uncompressed NIfTI. May be stopped at any time and called again.

    Args:
        folder: made where it is missing.
        scale: 2, 4, 8 or 16.
        progress: called with (finished volumes, all volumes, file name) after each volume.
        seed: another number, other patients.
        processes: see `write_phantom`.

    Raises:
        UserError: unknown scale, or the folder holds something else.
    """
    return write_phantom(Path(folder), default_plan(scale, seed), progress, processes)


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
    parser.add_argument("--seed", type=int, default=0, help="other patients (%(default)s)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    chosen = parser.parse_args(arguments)
    start = time.monotonic()

    def report(done: int, total: int, name: str) -> None:
        print(f"{done}/{total} {name} ({time.monotonic() - start:.0f} s)", flush=True)

    paths = generate_phantom(chosen.out, chosen.scale, report, chosen.seed)
    print(f"phantom for {chosen.scale}x in {paths.folder}")


if __name__ == "__main__":
    sys.exit(run_command_line(main, sys.argv[1:]))
