"""The pictures of stabilitytest: curves over the slices, and what changes in the worst one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from methods.trust_report import CALM, NOT_TRUSTED, Redo
from util.file_names import drawn
from util.images.resampling import enlarge
from util.images.trust import noised
from util.pages.page_parts import figure_png

LUNG = (-1000.0, 200.0)  # HU of the pictures
CHANGE = (0.0, 60.0)  # HU
CURVES = ("consistency_hu", "flip_hu", "noise_gain", "lattice_hu")
BESIDE = 4  # pixels beside the lung that are shown
BORDERS = ((CALM, "tab:orange", "calm"), (NOT_TRUSTED, "tab:red", "careful"))
DOTS_PER_INCH = 130
TALLEST = 6.0  # times its width, that a panel may be high


def draw_curves(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], name: str) -> bytes:
    """A panel a figure, with the borders of its words, as PNG."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    figure.suptitle(f"{drawn(name)}, slices counted from 0", fontsize=10)
    slices = [row["slice"] for row in rows]
    for place, what in enumerate(CURVES, start=1):
        axes = figure.add_subplot(2, 2, place)
        values = [row[what] for row in rows]
        axes.plot(slices, values, color="tab:blue", marker="." if len(slices) < 60 else None)
        for borders, color, word in BORDERS:
            if what in borders:
                axes.axhline(borders[what], color=color, linestyle="--", linewidth=1)
                axes.annotate(
                    f"{word} below",
                    (1, borders[what]),
                    (-2, 2),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7,
                    color=color,
                )
        highest = max([*values, NOT_TRUSTED.get(what, 0.0)])
        axes.set(ylabel=titles[what], ylim=(0, 1.12 * highest if highest > 0 else 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if place > 2:
            axes.set_xlabel("slice")
    return figure_png(figure, DOTS_PER_INCH)


def draw_worst(redo: Redo, image: np.ndarray, section: np.ndarray | None, name: str) -> bytes:
    """Input, result, and what mirroring and a little noise change in it, as PNG."""
    mirrored = None if section is None else np.ascontiguousarray(section[:, ::-1])
    result = redo(image, section)
    turned = redo(np.ascontiguousarray(image[:, ::-1]), mirrored)[:, ::-1]
    noisy = redo(noised(image), section)
    scale = result.shape[0] // image.shape[0]
    inside = np.ones(image.shape, bool) if section is None else section != 0
    lung = inside.repeat(scale, axis=0).repeat(scale, axis=1)
    panels = {
        f"{name}, cubic interpolation": (enlarge(image, scale, order=3), LUNG, "gray"),
        "super-resolution": (result, LUNG, "gray"),
        "changed by mirroring, HU": (np.abs(turned - result) * lung, CHANGE, "magma"),
        "changed by 15 HU of noise, HU": (np.abs(noisy - result) * lung, CHANGE, "magma"),
    }
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    shown_part = tuple(
        slice(max(0, places[0] - BESIDE) * scale, (places[-1] + 1 + BESIDE) * scale)
        for places in (rows, columns)
    )
    ratio = min((rows[-1] - rows[0] + 1) / (columns[-1] - columns[0] + 1), TALLEST)
    figure = Figure(figsize=(9, 8.4 * ratio + 0.7), layout="constrained")
    for place, (title, (shown, (low, high), colors)) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(2, 2, place)
        painted = axes.imshow(
            shown[shown_part], cmap=colors, vmin=low, vmax=high, interpolation="antialiased"
        )
        axes.set_title(drawn(title), fontsize=9)
        axes.axis("off")
        if colors == "magma":
            figure.colorbar(painted, ax=axes, shrink=0.8)
    return figure_png(figure, DOTS_PER_INCH)
