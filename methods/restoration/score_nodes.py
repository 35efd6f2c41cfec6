"""PSNR and SSIM on a page: the table of all slices together, and curves over the slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from methods.restoration.scores import Score
from util.pages.page_parts import figure_png, inline_png, table

CURVES = {"psnr": "PSNR, dB", "ssim": "SSIM"}


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
