"""The dial of texture: what it wins and loses, and whether the spread of draws is right.

    python -m benchmarks.dial --weights FILE ... --patients FOLDER ... [--figure FILE.png]

Each setting of the dial is scored on phantom patients as phantomtest does, beside the best estimate
with as much noise as its spectrum lacks (what noise alone wins). Then draws of each slice say how
sure the best estimate is: how many pixels of the truth lie within 1.645 standard deviations of
it, where 90 % should, in each region, with the spread as drawn and by factors on it, of which
scripts/export_weights.py `--spread` takes one along.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.phantom.case import read_case
from data.truth_case import TruthCase
from data.windows import CLINICAL_WINDOW
from methods.truth.opponents import with_noise
from methods.truth.scores import Scorer
from models.inference.case_enlarger import CaseEnlarger
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from util.images.resampling import enlarge
from util.pages.page_parts import figure_png

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
NINETY = 1.645  # standard deviations of a normal distribution on each side hold 90 %
FACTORS = (1.0, 1.2, 1.4, 1.6, 1.7, 1.8, 2.0)
MEASURES = (
    "psnr", "ssim", "resolution", "vessels_f1", "septa_f1", "airway_wall", "spectrum", "sharpness",
    "intensity", "intercept", "airspace",
)  # fmt: skip
BRIGHT = -800.0  # HU above which the best estimate shows more than parenchyma
SHOWN = 256  # edge of the figure's squares, pixels


def jobs(case: TruthCase) -> list[SliceJob]:
    """The slices of a case as the network takes them."""
    return [
        SliceJob(CLINICAL_WINDOW.to_unit(one), index=index)
        for index, one in enumerate(case.clinical)
    ]


def volume(resolver: SuperResolver, case: TruthCase, share: float) -> np.ndarray:
    """The case enlarged with a share of texture, HU."""
    resolver.texture = share
    units = [one for one in resolver.upscale_slices(jobs(case)) if one is not None]
    return np.stack([CLINICAL_WINDOW.to_physical(unit) for unit in units])


def score(scorers: Sequence[Scorer], volumes: Sequence[np.ndarray]) -> list[float]:
    """Each measure's mean over the cases."""
    found = [
        scorer.score("", image.astype(np.float32), {}).measures
        for scorer, image in zip(scorers, volumes, strict=True)
    ]
    return [float(np.nanmean([one[name] for one in found])) for name in MEASURES]


def covered(
    resolver: SuperResolver, cases: Sequence[TruthCase], step: int
) -> dict[str, list[float]]:
    """Region -> share of pixels within the interval of 90 %, by each of `FACTORS`."""
    resolver.texture, resolver.spread = 0.0, 1.0
    enlarger = CaseEnlarger(resolver, uncertainty=True)
    counts: dict[str, np.ndarray] = {}
    for case in cases:
        regions = case.regions
        chosen = range(0, len(case.clinical), step)
        all_jobs = jobs(case)
        drawn = enlarger.enlarge([all_jobs[index] for index in chosen])
        for index, enlarged in zip(chosen, drawn, strict=True):
            if enlarged is None or enlarged.deviation is None:
                raise ValueError("expected a spread of every slice")
            width = (CLINICAL_WINDOW.high - CLINICAL_WINDOW.low) / 2
            truth = case.truth[index].clip(CLINICAL_WINDOW.low, CLINICAL_WINDOW.high)
            best = CLINICAL_WINDOW.to_physical(enlarged.unit)
            errors = np.abs(best - truth)
            needed = errors / np.maximum(NINETY * width * enlarged.deviation, 1e-6)  # factor
            places = {name: masks[index] for name, masks in regions.items()}
            places["vessels, where the best estimate is bright"] = places["vessels"] & (
                best > BRIGHT
            )
            for name, inside in places.items():
                held = [np.count_nonzero(needed[inside] <= factor) for factor in FACTORS]
                now = np.array([*held, np.count_nonzero(inside)])
                counts[name] = counts.get(name, np.zeros(len(now))) + now
    return {name: list(count[:-1] / count[-1]) for name, count in counts.items()}


def draw(cases: Sequence[TruthCase], volumes: dict[str, Sequence[np.ndarray]], path: Path) -> None:
    """A row a case: a square of its middle slice as scanned, at each setting, and in the truth."""
    figure = Figure(figsize=(2.2 * (2 + len(volumes)), 2.3 * len(cases)), layout="constrained")
    axes = figure.subplots(len(cases), 2 + len(volumes), squeeze=False)
    for row, case in enumerate(cases):
        index = len(case.clinical) // 2
        images = {"scan, cubic": enlarge(case.clinical[index], case.scale, 3)}
        images |= {name: shown[row][index] for name, shown in volumes.items()}
        images["truth"] = case.truth[index]
        for axis, (name, image) in zip(axes[row], images.items(), strict=True):
            top, left = ((length - SHOWN) // 2 for length in image.shape)
            square = image[top : top + SHOWN, left : left + SHOWN]
            axis.imshow(square, cmap="gray", vmin=-1000, vmax=200)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(name, fontsize=9)
    path.write_bytes(figure_png(figure))


def main(words: list[str]) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", nargs="+", type=Path, required=True)
    parser.add_argument("--patients", nargs="+", type=Path, required=True, help="phantom folders")
    parser.add_argument(
        "--step", type=int, default=4, help="slices from one with draws to the next"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--figure", type=Path, help="of the last weights")
    arguments = parser.parse_args(words)
    cases = [read_case(folder) for folder in arguments.patients]
    scorers = [Scorer(case, CLINICAL_WINDOW) for case in cases]
    resolvers = [
        SuperResolver.from_checkpoint(path, precision=arguments.precision)
        for path in arguments.weights
    ]
    print(machine_line(resolvers[0].device, 0))
    print("| weights | texture | " + " | ".join(MEASURES) + " |")
    print("|---" * (2 + len(MEASURES)) + "|")
    for path, resolver in zip(arguments.weights, resolvers, strict=True):
        volumes: dict[str, Sequence[np.ndarray]] = {
            f"{share:g}": [volume(resolver, case, share) for case in cases] for share in SHARES
        }
        rows = dict(volumes)
        best = volumes[f"{SHARES[0]:g}"]
        rows["0 and noise"] = [
            with_noise(image, case) for image, case in zip(best, cases, strict=True)
        ]
        for name, images in rows.items():
            cells = " | ".join(f"{value:.3f}" for value in score(scorers, images))
            print(f"| {path.stem} | {name} | {cells} |", flush=True)
        for region, shares in covered(resolver, cases, arguments.step).items():
            cells = ", ".join(
                f"{share:.3f} (x{factor:g})" for share, factor in zip(shares, FACTORS, strict=True)
            )
            print(f"  within the interval of 90 %, {region}: {cells}", flush=True)
    if arguments.figure:
        draw(cases, {f"texture {name}": shown for name, shown in volumes.items()}, arguments.figure)


if __name__ == "__main__":
    run_benchmark(main)
