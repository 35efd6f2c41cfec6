"""PSNR and SSIM of restored slices beside the truth, slice by slice and in total, as files and on
the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from util.files import write_text
from util.images.metrics import psnr, ssim
from util.pages.page_parts import figure_png, inline_png, table

DATA_RANGE = 2.0  # scores are taken on the network's scale, [-1, 1]
FIELDS = ("slice", "method", "psnr", "ssim")

Score = dict[str, float | int | str]

CURVES = {"psnr": "PSNR, dB", "ssim": "SSIM"}


def score_slice(
    index: int, restored: dict[str, np.ndarray], truth: np.ndarray, mask: np.ndarray | None
) -> list[Score]:
    """PSNR and SSIM of each method on one slice in [-1, 1].

    Both are taken after a shift to [0, 2], so that the window's low end is SSIM's zero.
    """
    reference = truth + 1.0
    rows: list[Score] = []
    for name, image in restored.items():
        shifted = image + 1.0
        rows.append(
            {
                "slice": index,
                "method": name,
                "psnr": psnr(shifted, reference, DATA_RANGE, mask),
                "ssim": ssim(shifted, reference, DATA_RANGE, mask),
                "pixels": int(truth.size if mask is None else np.count_nonzero(mask)),
            }
        )
    return rows


def summarise(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Total scores by method: PSNR of the pooled squared error, mean SSIM over the slices."""
    summary = {}
    for method in dict.fromkeys(str(row["method"]) for row in scores):
        rows = [row for row in scores if row["method"] == method]
        pixels = np.array([row["pixels"] for row in rows], dtype=np.float64)
        errors = np.array([DATA_RANGE**2 / 10 ** (float(row["psnr"]) / 10) for row in rows])
        error = float((errors * pixels).sum() / pixels.sum())
        total = 10 * math.log10(DATA_RANGE**2 / error) if error > 0 else math.inf
        mean_ssim = float(np.mean([float(row["ssim"]) for row in rows]))
        summary[method] = {"psnr": total, "ssim": mean_ssim}
    return summary


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """One CSV row a slice and method."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, [*FIELDS, "pixels"], lineterminator="\n")
    table.writeheader()
    table.writerows(scores)
    write_text(path, stream.getvalue())


def format_table(summary: dict[str, dict[str, float]]) -> str:
    """A plain table for the screen."""
    lines = [f"{'method':<14}{'PSNR (dB)':>12}{'SSIM':>10}"]
    lines += [
        f"{name:<14}{row['psnr']:>12.2f}{row['ssim']:>10.4f}" for name, row in summary.items()
    ]
    return "\n".join(lines)


def score_nodes(summary: Mapping[str, Mapping[str, float]], scores: Sequence[Score]) -> list[Any]:
    """Table and picture; see `methods.restoration.scores.summarise` for what the table says."""
    rows = [[method, f"{one['psnr']:.2f}", f"{one['ssim']:.4f}"] for method, one in summary.items()]
    head = ["method", *CURVES.values()]
    return [table(head, rows), inline_png(score_curves(scores), "PSNR and SSIM of each slice")]


def score_curves(scores: Sequence[Score]) -> bytes:
    """PNG with a curve a method over the slices, counted from 0; infinite values are left out."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    methods = list(dict.fromkeys(str(row["method"]) for row in scores))
    for place, (name, title) in enumerate(CURVES.items(), start=1):
        axes = figure.add_subplot(1, len(CURVES), place)
        for method in methods:
            points = [
                (int(row["slice"]), float(row[name]))
                for row in scores
                if row["method"] == method and math.isfinite(float(row[name]))
            ]
            axes.plot(*zip(*points, strict=True) if points else ([], []), marker=".", label=method)
        axes.set_xlabel("slice (from 0)")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure_png(figure)
