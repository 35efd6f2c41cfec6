"""How weights do on scanners that they were not made for: dB inside the lung, scanner by scanner.

`phantomtest --scanners` has these scanners and more on the fixed patients. Here `python -m
benchmarks.scanners --weights FILE ... --patients FOLDER ...` takes any others, and `--ct FILE` with
its lung mask `--mask FILE` takes a CT as the truth of itself. The truth is shrunk by area average
and seen by the scanners of methods/truth/scanner_matrix.py; then it is enlarged again. PSNR in the
window [-1000, 500] HU, of each slice, mean. A first row has the patients' own scanner, and stands
in no mean.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from data.phantom.case import read_case
from methods.truth.scanner_matrix import BLURS, NOISES, Scanner, seen_by
from models.inference.super_resolver import SuperResolver
from util.images.metrics import psnr
from util.images.resampling import area_average, enlarge

WINDOW = (-1000.0, 500.0)  # HU
OPPONENTS = {"cubic spline": 3, "nearest": 0}


def score(image: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> float:
    """PSNR in the window, dB."""
    return psnr(image.clip(*WINDOW), truth.clip(*WINDOW), WINDOW[1] - WINDOW[0], inside)


def truths(arguments: argparse.Namespace, scale: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Slices in HU and their lung (bool), sides multiples of the scale."""
    for folder in arguments.patients:
        case = read_case(folder)
        for index in range(0, case.truth.shape[0], arguments.step):
            lung = case.mask[index].repeat(case.scale, axis=0).repeat(case.scale, axis=1)
            yield case.truth[index], lung
    if arguments.ct:
        volume, mask = read_volume(arguments.ct), read_volume(arguments.mask)
        rows, columns = (length // scale * scale for length in volume.array.shape[1:])
        first, stop = arguments.slices
        for index in range(first, stop, arguments.step):
            lung = mask.read_slice(index)[:rows, :columns] != 0
            yield volume.read_slice(index)[:rows, :columns].astype(np.float32), lung


def measure(
    resolvers: Sequence[SuperResolver], arguments: argparse.Namespace
) -> tuple[list[tuple[float, float]], np.ndarray]:
    """The scanners, and dB (scanners, opponents and weights), mean over slices."""
    scale = resolvers[0].scale
    cells = list(itertools.product(arguments.blurs, arguments.noises))
    rows = []
    generator = np.random.default_rng(arguments.seed)
    for truth, inside in truths(arguments, scale):
        average = area_average(truth, scale)
        of_slice = []
        for blur, noise in cells:
            seen = seen_by(Scanner(blur, noise), average, generator)
            of_slice.append(scores_of(seen, truth, inside, resolvers))
        rows.append(of_slice)
    return cells, np.mean(rows, axis=0)


def scores_of(
    seen: np.ndarray, truth: np.ndarray, inside: np.ndarray, resolvers: Sequence[SuperResolver]
) -> list[float]:
    """dB of opponents and weights on one slice."""
    images = [enlarge(seen, resolvers[0].scale, order) for order in OPPONENTS.values()]
    images += [resolver.upscale(seen) for resolver in resolvers]
    return [score(image, truth, inside) for image in images]


def own_scanner(resolvers: Sequence[SuperResolver], arguments: argparse.Namespace) -> np.ndarray:
    """dB (opponents and weights) on the patients' own clinical CT, mean over slices."""
    rows = []
    for folder in arguments.patients:
        case = read_case(folder)
        for index in range(0, case.truth.shape[0], arguments.step):
            lung = case.mask[index].repeat(case.scale, axis=0).repeat(case.scale, axis=1)
            rows.append(scores_of(case.clinical[index], case.truth[index], lung, resolvers))
    return np.mean(rows, axis=0)


def main(words: list[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="+", type=Path, required=True)
    parser.add_argument("--patients", nargs="+", type=Path, default=[], help="phantom folders")
    parser.add_argument("--ct", type=Path, help="a CT that is the truth of itself")
    parser.add_argument("--mask", type=Path, help="its lung mask")
    parser.add_argument("--slices", nargs=2, type=int, default=(40, 200), help="of the CT")
    parser.add_argument("--step", type=int, default=4, help="slices from one to the next")
    parser.add_argument("--blurs", nargs="+", type=float, default=BLURS)
    parser.add_argument("--noises", nargs="+", type=float, default=NOISES)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    if not arguments.patients and not (arguments.ct and arguments.mask):
        parser.error("no truth: give --patients, or --ct and --mask")
    resolvers = [
        SuperResolver.from_checkpoint(path, precision=arguments.precision)
        for path in arguments.weights
    ]
    cells, scores = measure(resolvers, arguments)
    names = [*OPPONENTS, *(path.stem for path in arguments.weights)]
    print(machine_line(resolvers[0].device, arguments.seed))
    print("| point spread, noise | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    if arguments.patients:
        own = own_scanner(resolvers, arguments)
        print("| their own | " + " | ".join(f"{one:.2f}" for one in own) + " |")
    for (blur, noise), row in zip(cells, scores, strict=True):
        print(f"| {blur:g} px, {noise:g} HU | " + " | ".join(f"{one:.2f}" for one in row) + " |")
    gains = scores - scores[:, :1]
    for word, line in (("mean", gains.mean(0)), ("worst", gains.min(0))):
        print(f"| {word} against cubic | " + " | ".join(f"{one:+.2f}" for one in line) + " |")


if __name__ == "__main__":
    run_benchmark(main)
