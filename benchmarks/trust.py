"""How far weights can be trusted on a scan without a truth (util/images/trust.py).

`python -m benchmarks.trust --weights FILE ... --ct FILE --mask FILE` takes ten slices
evenly from the middle half of a CT and prints consistency, flip, noise gain and lattice inside the
lung mask: their means with 95 % intervals (Student). One pass, no ensemble. `--truth FOLDER ...`
prints the lattice of phantom patients' truths instead. Cubic spline interpolation stands beside the
weights: a lattice that it has too is tissue along an axis.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from data.phantom.case import read_case
from models.inference.super_resolver import SuperResolver
from util.images.resampling import enlarge
from util.images.trust import lattice, measure_trust

Enlarge = Callable[[np.ndarray], np.ndarray]
COLUMNS = ("consistency, HU", "flip, HU", "noise gain", "lattice, dB", "lattice, HU")


def interval(values: list[float]) -> str:
    """Mean and 95 % interval."""
    mean, count = float(np.mean(values)), len(values)
    width = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return f"{mean:.2f} ({mean - width:.2f} to {mean + width:.2f})"


def figures(upscale: Enlarge, ct: Path, mask: Path, count: int) -> list[list[float]]:
    """The figures of `COLUMNS` for each of the slices."""
    volume, lung = read_volume(ct), read_volume(mask)
    rows = []
    for place in np.linspace(0.25, 0.75, count):
        index = int(place * volume.num_slices)
        inside = lung.read_slice(index) != 0
        image = volume.read_slice(index).astype(np.float32)
        found = measure_trust(upscale, image, inside)
        rows.append([found.consistency, found.flip, found.noise_gain, *found.lattice])
    return rows


def main(words: list[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="+", type=Path, default=[])
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--truth", nargs="+", type=Path, default=[], help="phantom folders")
    parser.add_argument("--count", type=int, default=10, help="slices, two or more")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args(words)
    if not arguments.truth and not (arguments.weights and arguments.ct and arguments.mask):
        parser.error("nothing to measure: give --weights, --ct and --mask, or --truth")
    if arguments.count < 2:
        parser.error(f"--count is {arguments.count}, expected 2 or more slices for an interval")
    print(machine_line(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 0))
    print("| | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    resolvers = [
        SuperResolver.from_checkpoint(path, precision=arguments.precision)
        for path in arguments.weights
    ]
    # What the figures are of an image that nothing was learned for.
    scale = resolvers[0].scale if resolvers else 8
    opponents: list[tuple[str, Enlarge]] = [
        ("cubic spline", lambda image: enlarge(image, scale, order=3))
    ]
    for path, resolver in zip(arguments.weights, resolvers, strict=True):
        opponents.append((path.stem, resolver.upscale))
    for name, upscale in opponents if arguments.ct else []:
        rows = figures(upscale, arguments.ct, arguments.mask, arguments.count)
        columns = [[row[column] for row in rows] for column in range(len(COLUMNS))]
        print(f"| {name} | " + " | ".join(interval(one) for one in columns) + " |", flush=True)
    for folder in arguments.truth:
        case = read_case(folder)
        found = [lattice(case.truth[i], case.mask[i]) for i in range(case.truth.shape[0])]
        decibel, amplitude = (interval(list(one)) for one in zip(*found, strict=True))
        print(f"| truth of {case.name} | | | | {decibel} | {amplitude} |")


if __name__ == "__main__":
    run_benchmark(main)
