"""Figures of the scores: resolution, perception against distortion, and the matrix of scanners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from methods.truth.opponents import Kind, Method
from methods.truth.scores import CaseScores
from methods.truth.tables import Summary
from util.file_names import drawn
from util.files import atomic_path
from util.images.resolution import THRESHOLD

DPI = 110
MARKERS: dict[Kind, str] = {"model": "o", "baseline": "s", "oracle": "^", "control": "x"}
LINES: dict[Kind, str] = {"model": "-", "baseline": "--", "oracle": ":", "control": "-."}


def draw_scores(
    path: Path, scores: Sequence[CaseScores], summary: Summary, methods: Sequence[Method]
) -> None:
    """Left: Fourier ring correlation with the truth. Right: perception against distortion.

    The right one has the mean absolute error across and the distance of the power spectrum up
    (Blau and Michaeli, CVPR 2018); both are better low, and the control shows what noise wins.
    """
    figure = Figure(figsize=(13, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_curves(left, scores, methods)
    for number, method in enumerate(methods):
        across, up = summary[method.name]["mae"], summary[method.name]["spectrum"]
        right.errorbar(
            across.mean,
            up.mean,
            xerr=_reach(across),
            yerr=_reach(up),
            fmt=MARKERS[method.kind],
            color=f"C{number}",
            markersize=8,
            capsize=3,
            label=_label(method),
            markerfacecolor=None if method.kind == "model" else "white",
        )
    right.set_xlabel("distortion: mean absolute error, HU")
    right.set_ylabel("perception: distance of the power spectrum, dB")
    right.grid(alpha=0.3)
    right.legend(fontsize="small")
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI)


def _reach(interval: tuple[float, float, float]) -> list[list[float]]:
    mean, low, high = np.nan_to_num(interval, nan=interval[0])
    return [[mean - low], [high - mean]]


def _label(method: Method) -> str:
    is_named = method.kind in ("oracle", "control")
    return drawn(f"{method.name} ({method.kind})" if is_named else method.name)


def _draw_curves(axes: Axes, scores: Sequence[CaseScores], methods: Sequence[Method]) -> None:
    for number, method in enumerate(methods):
        curves = [one.curve for one in scores if one.method == method.name]
        frequency = curves[0][0]
        # Patients of other sizes have other rings.
        values = [np.interp(frequency, *curve) for curve in curves]
        axes.plot(
            frequency,
            np.mean(values, axis=0),
            LINES[method.kind],
            color=f"C{number}",
            label=_label(method),
        )
    axes.axhline(THRESHOLD, color="black", linewidth=0.8)
    axes.set_xlim(0, min(float(frequency[-1]), 4.0))
    axes.set_ylim(-0.1, 1.02)
    axes.set_xlabel("frequency, cycles/mm")
    axes.set_ylabel("Fourier ring correlation with the truth")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def draw_heat_map(
    path: Path, title: str, rows: Sequence[str], columns: Sequence[str], gains: np.ndarray
) -> None:
    """Gains in dB as colours and numbers; NaN where there is none.

    Args:
        path: of the PNG.
        title: above it.
        rows, columns: what they are.
        gains: (rows, columns).
    """
    figure = Figure(figsize=(2.5 + 1.1 * len(columns), 1.2 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # Nothing gained is white, red is worse than the best baseline.
    limit = max(0.5, float(np.nanmax(np.abs(gains))))
    shown = axes.imshow(gains, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for row, column in np.argwhere(np.isfinite(gains)):
        value = gains[row, column]
        colour = "white" if abs(value) > 0.65 * limit else "black"
        axes.text(column, row, f"{value:+.2f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(columns)), [drawn(name) for name in columns])
    axes.set_yticks(range(len(rows)), [drawn(name) for name in rows])
    axes.set_title(drawn(title))
    figure.colorbar(shown, label="dB")
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI)
