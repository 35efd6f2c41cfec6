"""Curves of all that a run logs, as one PNG that is drawn anew while it trains."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from util.files import atomic_path

MOST_POINTS = 1000  # of a curve; more than a picture has columns
FEW_POINTS = 30  # each is marked, since a curve of one point would not be seen
SECONDS_BETWEEN = 30.0  # two drawings of half a second each, where epochs are short
COLUMNS = 4
PANEL_INCHES = (3.2, 2.2)


class Curves:
    """Collects means over stretches of steps and draws each name in a panel of its own.

    Memory and time do not grow with the run: whenever there are more than `MOST_POINTS`, two
    neighbours become their mean.

    Args:
        path: the PNG.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._drawn_at = -math.inf
        self._points: dict[str, list[tuple[float, float]]] = {}

    def add(self, step: float, values: Mapping[str, float]) -> None:
        """Add a point to each curve; what is not finite leaves a gap."""
        for name, value in values.items():
            points = self._points.setdefault(name, [])
            points.append((step, value if math.isfinite(value) else math.nan))
            if len(points) > MOST_POINTS:
                points[:] = [
                    ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
                    for a, b in zip(points[::2], points[1::2], strict=False)
                ] + points[len(points) // 2 * 2 :]

    def add_file(self, path: Path, names: Sequence[str]) -> None:
        """Add the rows of a CSV file with a column `step`, from an earlier part of the run."""
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as stream:
            wanted = ["step", *names]
            rows = [[float(row.get(n) or "nan") for n in wanted] for row in csv.DictReader(stream)]
        if not rows:
            return
        for stretch in np.array_split(np.array(rows), min(len(rows), MOST_POINTS // 2)):
            step, *means = stretch.mean(axis=0).tolist()
            self.add(step, dict(zip(names, means, strict=True)))

    def draw(self, at_once: bool = True) -> None:
        """Write the PNG; nothing where there are no points yet.

        A name that is 0 throughout, such as a loss without weight, gets no panel.

        Args:
            at_once: False leaves a picture of the last `SECONDS_BETWEEN` as it is.
        """
        now = time.monotonic()
        shown = {
            name: points
            for name, points in self._points.items()
            if any(abs(value) > 0 for _, value in points)
        }
        if not shown or (not at_once and now - self._drawn_at < SECONDS_BETWEEN):
            return
        self._drawn_at = now
        rows = -(-len(shown) // COLUMNS)
        width, height = COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1]
        figure = Figure(figsize=(width, height))
        # Fixed margins: letting Matplotlib find them takes longer than drawing.
        figure.subplots_adjust(
            left=0.5 / width,
            right=1 - 0.2 / width,
            bottom=0.5 / height,
            top=1 - 0.3 / height,
            wspace=0.25,
            hspace=0.4,
        )
        for place, (name, points) in enumerate(shown.items(), start=1):
            axes = figure.add_subplot(rows, COLUMNS, place)
            axes.plot(
                *zip(*points, strict=True),
                linewidth=1,
                marker="." if len(points) < FEW_POINTS else "",
            )
            axes.set_title(name, fontsize=9)
            axes.tick_params(labelsize=7)
            axes.grid(visible=True, linewidth=0.3)
        figure.supxlabel("step", fontsize=9)
        with atomic_path(self.path) as partial:
            FigureCanvasAgg(figure).print_png(partial)
