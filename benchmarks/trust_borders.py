"""Which figures of trust go with an image that is better than interpolation, where truth is known.

`python -m benchmarks.trust_borders --weights FILE ... --patients FOLDER ...` enlarges phantom
patients, seen by the scanners of `benchmarks.scanners`, with weights good and bad, and prints for
several borders of flip, noise gain and lattice how many of the images below it beat cubic
interpolation (PSNR inside the lung), and how many above it do. The words of
methods/trust_report.py come from there.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from benchmarks.scanners import score
from data.phantom.case import read_case
from methods.truth.scanner_matrix import BLURS, NOISES, Scanner, seen_by
from models.inference.super_resolver import SuperResolver
from util.images.resampling import area_average, enlarge
from util.images.trust import measure_trust
from util.pages.page_parts import figure_png

COLUMNS = ("flip, HU", "noise gain", "lattice, HU")
DRAWN = (*COLUMNS, "consistency, HU")
LOGARITHMIC = ("flip, HU", "lattice, HU")
BORDERS = {
    "flip, HU": (6, 8, 10, 12, 15, 20),
    "noise gain": (1.25, 1.5, 2.0, 2.5, 3.0, 4.0),
    "lattice, HU": (1.0, 2.0, 3.0, 4.0, 6.0, 9.0),
}


def cases(weights: list[Path], patients: list[Path], seed: int) -> np.ndarray:
    """Rows of the figures of DRAWN, dB above cubic interpolation, and the number of the weights."""
    resolvers = [SuperResolver.from_checkpoint(path) for path in weights]
    generator = np.random.default_rng(seed)
    rows = []
    for folder in patients:
        case = read_case(folder)
        index = case.truth.shape[0] // 2
        truth, inside = case.truth[index], case.mask[index] != 0
        fine = inside.repeat(case.scale, axis=0).repeat(case.scale, axis=1)
        average = area_average(truth, case.scale)
        for blur, noise in product(BLURS, NOISES):
            seen = seen_by(Scanner(blur, noise), average, generator)
            cubic = score(enlarge(seen, case.scale, 3), truth, fine)
            for number, resolver in enumerate(resolvers):
                found = measure_trust(resolver.upscale, seen, inside)
                gain = score(resolver.upscale(seen), truth, fine) - cubic
                figures = found.flip, found.noise_gain, found.lattice.amplitude, found.consistency
                rows.append((*figures, gain, number))
    return np.array(rows)


def draw(path: Path, rows: np.ndarray, names: list[str]) -> None:
    """A panel a figure: gain over cubic interpolation of every image, by weights."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    for column, title in enumerate(DRAWN):
        axes = figure.add_subplot(1, len(DRAWN), column + 1)
        for number, name in enumerate(names):
            of = rows[rows[:, -1] == number]
            axes.scatter(of[:, column], of[:, len(DRAWN)], s=9, alpha=0.7, label=name)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xlabel=title)
        if title in LOGARITHMIC:
            axes.set(xscale="log")
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.grid(alpha=0.3)
        if column == 0:
            axes.set_ylabel("dB above cubic spline")
            axes.legend(fontsize=7)
    path.write_bytes(figure_png(figure, 130))


def main(words: list[str]) -> None:
    """Measure and print a table for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="+", type=Path, required=True)
    parser.add_argument("--patients", nargs="+", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    print(
        machine_line(torch.device("cuda" if torch.cuda.is_available() else "cpu"), arguments.seed)
    )
    rows = cases(arguments.weights, arguments.patients, arguments.seed)
    better = rows[:, len(DRAWN)] > 0
    if arguments.figure:
        draw(arguments.figure, rows, [path.stem for path in arguments.weights])
    print(f"{len(rows)} images, {100 * better.mean():.0f} % of them better than cubic spline\n")
    for column, name in enumerate(COLUMNS):
        print(f"| {name} | images up to it | of them better | images above it | of them better |")
        print("|---|---|---|---|---|")
        for border in BORDERS[name]:
            below = rows[:, column] <= border
            shares = [
                f"{chosen.sum()} | {100 * better[chosen].mean():.0f} %" if chosen.any() else "0 | "
                for chosen in (below, ~below)
            ]
            print(f"| {border:g} | {shares[0]} | {shares[1]} |")
        print()


if __name__ == "__main__":
    run_benchmark(main)
