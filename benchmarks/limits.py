"""What enlargement can and cannot show: error and resolution by the scan's point spread and noise.

    python -m benchmarks.limits --weights FILE --patients FOLDER ... --figure FILE.png

Phantom patients are seen by scanners of other point spreads and noises (`methods.truth.
scanner_matrix`), enlarged by weights and by cubic interpolation, and compared with the truth inside
the lung: root mean square error in HU, and the finest period in mm that lies in place (Fourier ring
correlation 0.5). Means over patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.phantom.case import read_case
from methods.truth.scanner_matrix import NOISES, Scanner, seen_by
from models.inference.super_resolver import SuperResolver
from util.images.resampling import area_average, enlarge
from util.images.resolution import resolution, ring_correlation
from util.images.spectra import faded
from util.pages.page_parts import figure_png

BLURS = (0.0, 1.2, 1.6, 2.0, 2.4, 2.8)  # full width at half maximum, clinical pixels
WINDOW = (-1000.0, 500.0)  # HU
FADE = 8.0  # fine pixels
COLORS = ("tab:blue", "tab:orange", "tab:red")


def measure(
    methods: Sequence[Callable[[np.ndarray], np.ndarray]], patients: Sequence[Path], step: int
) -> tuple[np.ndarray, float]:
    """Means over patients (blurs, noises, methods, error in HU and resolution in mm), and the
    clinical pixel in mm."""
    generator = np.random.default_rng(0)
    found = np.empty((len(patients), len(BLURS), len(NOISES), len(methods), 2))
    for number, folder in enumerate(patients):
        case = read_case(folder)
        spacing = float(np.linalg.norm(case.affine[:3, 0]))
        truths = case.truth[::step]
        lungs = case.mask[::step].repeat(case.scale, axis=1).repeat(case.scale, axis=2)
        weights = np.stack([faded(lung, FADE) for lung in lungs])
        averages = [area_average(truth, case.scale) for truth in truths]
        for row, blur in enumerate(BLURS):
            for column, noise in enumerate(NOISES):
                seen = [seen_by(Scanner(blur, noise), image, generator) for image in averages]
                for which, method in enumerate(methods):
                    images = np.stack([method(image) for image in seen])
                    errors = (images.clip(*WINDOW) - truths.clip(*WINDOW))[lungs]
                    curve = ring_correlation(images, truths, weights, spacing)
                    found[number, row, column, which] = (
                        np.sqrt(np.mean(errors**2)),
                        resolution(*curve),
                    )
    return found.mean(axis=0), spacing * case.scale


def draw(path: Path, found: np.ndarray, names: Sequence[str], pixel: float) -> None:
    """Error and resolution over point spread; a colour a noise, a line style a method."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for place, title in enumerate(("error inside the lung, HU", "finest detail in place, mm")):
        axes = figure.add_subplot(1, 2, place + 1)
        for column, (noise, color) in enumerate(zip(NOISES, COLORS, strict=True)):
            for which, style in enumerate(("--", "-")):
                label = f"{names[which]}, noise of {noise:g} HU"
                values = found[:, column, which, place]
                axes.plot(BLURS, values, style, color=color, marker=".", label=label)
        axes.set(xlabel=f"point spread of the scan, pixels of {pixel:g} mm", ylabel=title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if place == 1:
            axes.axhline(2 * pixel, color="gray", linewidth=0.8)
            axes.annotate("two pixels of the scan", (0, 2 * pixel), (2, 3), fontsize=7,
                          textcoords="offset points")  # fmt: skip
        else:
            axes.legend(fontsize=7, loc="lower right", handlelength=4)
    path.write_bytes(figure_png(figure, 130))


def main(words: list[str]) -> None:
    """Measure, draw and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--patients", type=Path, nargs="+", required=True)
    parser.add_argument("--step", type=int, default=4, help="slices from one to the next")
    parser.add_argument("--figure", type=Path, required=True)
    arguments = parser.parse_args(words)
    resolver = SuperResolver.from_checkpoint(arguments.weights)
    methods = [lambda image: enlarge(image, resolver.scale, 3), resolver.upscale]
    found, pixel = measure(methods, arguments.patients, arguments.step)
    names = ("cubic interpolation", "super-resolution")
    draw(arguments.figure, found, names, pixel)
    print(machine_line(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 0))
    columns = [f"{name}, {unit}" for name in names for unit in ("HU", "mm")]
    print("| point spread, noise | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row, blur in enumerate(BLURS):
        for column, noise in enumerate(NOISES):
            cells = [
                f"{found[row, column, which, unit]:.{digits}f}"
                for which in range(len(names))
                for unit, digits in ((0, 1), (1, 2))
            ]
            print(f"| {blur:g} px, {noise:g} HU | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    run_benchmark(main)
