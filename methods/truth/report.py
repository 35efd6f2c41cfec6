"""What the benchmark writes: tables as CSV and JSON, figures, and one HTML page with pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dominate import tags

from methods.pages.result_page import PAGE, keep_other_page, page_links
from methods.truth.figures import draw_scores
from methods.truth.opponents import Method
from methods.truth.scanner_matrix import ScannerMatrix
from methods.truth.scores import GROUPS, MEASURES, CaseScores
from methods.truth.tables import (
    Difference,
    Summary,
    cell,
    curves_csv,
    differences,
    format_table,
    in_words,
    known,
    patients_csv,
    slices_csv,
    summarise,
    title,
)
from util.files import write_json, write_text
from util.images.intensity_window import IntensityWindow
from util.images.pictures import best_inset, comparison_picture
from util.intervals import LEAST
from util.pages.page_parts import address, inline_png, new_page, table, text_of

PICTURE_LOW, PICTURE_HIGH = -1000.0, 200.0  # HU of the pictures: lung and vessels
ORACLE_WORDS = (
    "Oracles know blur and noise of the very scanner. The control is the linear filter with noise "
    "of the truth's spectrum: what it reaches in a measure, noise can reach."
)


def output_names(prefix: str, scanners: bool) -> tuple[str, ...]:
    """Names of all files, the page last; `prefix` is the method's."""
    parts = ["slices.csv", "patients.csv", "resolution.csv", "scores.json", "figure.png"]
    parts += ["scanners.csv", "scanners.png"] if scanners else []
    return (*(f"{prefix}_{part}" for part in parts), PAGE)


@dataclass(frozen=True)
class PatientPicture:
    """What the page shows of one patient."""

    caption: str  # above it
    images: Mapping[str, np.ndarray]  # a slice (rows, columns) in HU by title, "truth" among them
    page: str | None = None  # file name of the patient's own page, None without one


@dataclass(frozen=True)
class Report:
    """All that was measured.

    Attributes:
        prefix: of the files' names.
        method: of medicaltest.py.
        scores: of all patients and methods.
        methods: in the tables' order.
        pictures: of some patients.
        window: of the scores.
        facts: about the cases, by name.
        matrix: of scanners, where it was asked for.
    """

    prefix: str
    method: str
    scores: Sequence[CaseScores]
    methods: Sequence[Method]
    pictures: Sequence[PatientPicture]
    window: IntensityWindow
    facts: Mapping[str, object]
    matrix: ScannerMatrix | None = None

    def write(self, folder: Path) -> str:
        """Write the tables among `output_names`; returns them for the screen."""
        summary, apart = summarise(self.scores), differences(self.scores, self.methods)
        place = self._places(folder)
        write_text(place["slices.csv"], slices_csv(self.scores))
        write_text(place["patients.csv"], patients_csv(self.scores))
        write_text(place["resolution.csv"], curves_csv(self.scores))
        write_json(place["scores.json"], self._as_json(summary, apart))
        if self.matrix is not None:
            write_text(place["scanners.csv"], self.matrix.as_csv())
        return "\n".join([format_table(summary), "", *self._sentences(apart)])

    def draw(self, folder: Path) -> None:
        """Draw the pictures among `output_names`, and write the page around them."""
        summary, apart = summarise(self.scores), differences(self.scores, self.methods)
        place = self._places(folder)
        draw_scores(place["figure.png"], self.scores, summary, self.methods)
        if self.matrix is not None:
            self.matrix.draw(place["scanners.png"])
        others = keep_other_page(folder / PAGE, self.method)
        write_text(folder / PAGE, self._page(folder, summary, apart, others))

    def _places(self, folder: Path) -> dict[str, Path]:
        return {name.partition("_")[2]: folder / name for name in self._names()}

    def _names(self) -> tuple[str, ...]:
        return output_names(self.prefix, self.matrix is not None)[:-1]

    def _sentences(self, apart: Mapping[str, Mapping[str, Difference]]) -> list[str]:
        patients = len({one.patient for one in self.scores})
        lines = in_words(apart)
        if patients < LEAST:
            lines.append(
                f"{patients} patients: no intervals, and nothing is proven; {LEAST} or more are "
                "needed"
            )
        return lines + (self.matrix.sentences() if self.matrix is not None else [])

    def _as_json(
        self, summary: Summary, apart: Mapping[str, Mapping[str, Difference]]
    ) -> dict[str, object]:
        groups = dict.fromkeys(one.group for one in self.scores)
        return {
            **self.facts,
            "patients": list(dict.fromkeys(one.patient for one in self.scores)),
            "window": self.window.as_dict(),
            "measures": {
                name: {"what": measure.what, "unit": measure.unit, "kind": kind}
                for kind, group in GROUPS.items()
                for name, measure in group.items()
            },
            "methods": {method.name: method.kind for method in self.methods},
            "all": _plain(summary),
            "by_disease": {
                group: _plain(summarise([one for one in self.scores if one.group == group]))
                for group in groups
            },
            "minus_best_baseline": {
                model: {
                    name: {"baseline": one.baseline, **one.interval._asdict()}
                    for name, one in row.items()
                }
                for model, row in apart.items()
            },
            "scanners": None if self.matrix is None else self.matrix.as_json(),
        }

    def _page(
        self,
        folder: Path,
        summary: Summary,
        apart: Mapping[str, Mapping[str, Difference]],
        others: Mapping[str, str],
    ) -> str:
        """One HTML file with everything in it."""
        document = new_page("Benchmark against the truth", method=self.method)
        body = document.body
        for node in page_links(others):
            body.add(node)
        for line in self._sentences(apart):
            body.add(tags.p(line))
        body.add(tags.p(f"Mean over patients with Student's 95 % interval. {ORACLE_WORDS}"))
        for heading, group in GROUPS.items():
            names = [name for name in group if any(known(row[name]) for row in summary.values())]
            if names:
                body.add(tags.h2(heading))
                body.add(self._table(names, summary, apart))
        body.add(tags.h2("Resolution, and perception against distortion"))
        figure = (folder / self._names()[4]).read_bytes()
        body.add(inline_png(figure, "resolution, and perception against distortion"))
        if self.matrix is not None:
            body.add(tags.h2("Other scanners"))
            body.add(inline_png((folder / self._names()[-1]).read_bytes(), "gain by scanner"))
            body.add(table(*self.matrix.table()))
        for one in self.pictures:
            body.add(tags.h2(one.caption))
            if one.page is not None:
                body.add(tags.p(tags.a("look at its volumes", href=address(one.page))))
            body.add(inline_png(_comparison(folder, one.images), one.caption))
        return text_of(document)

    def _table(
        self,
        names: Sequence[str],
        summary: Summary,
        apart: Mapping[str, Mapping[str, Difference]],
    ) -> tags.table:
        rows = []
        for name in names:
            larger = MEASURES[name].larger_is_better
            wish = "nearest to 1" if larger is None else "higher" if larger else "lower"
            gains = [_difference_cell(row.get(name)) for row in apart.values()]
            cells = [cell(row[name]) for row in summary.values()]
            rows.append([f"{title(name)} ({wish} is better{self._only(name)})", *cells, *gains])
        kinds = [
            f"{method.name} ({method.kind})"
            if method.kind in ("oracle", "control")
            else method.name
            for method in self.methods
        ]
        return table(["measure", *kinds, *(f"{one} minus best baseline" for one in apart)], rows)

    def _only(self, name: str) -> str:
        """How many patients have a measure, where it is not all."""
        first = [one for one in self.scores if one.method == self.methods[0].name]
        there = sum(not math.isnan(one.measures[name]) for one in first)
        return "" if there == len(first) else f"; {there} of {len(first)} patients"


def _difference_cell(one: Difference | None) -> str:
    if one is None or not known(one.interval):
        return ""
    return f"{cell(one.interval, signed=True)}, {one.baseline}"


def _plain(summary: Summary) -> dict[str, dict[str, dict[str, float]]]:
    return {
        method: {name: interval._asdict() for name, interval in row.items()}
        for method, row in summary.items()
    }


def _comparison(folder: Path, images: Mapping[str, np.ndarray]) -> bytes:
    """PNG of a patient's images side by side."""
    path = folder / "preview.png"
    truth = images["truth"].clip(PICTURE_LOW, PICTURE_HIGH)
    comparison_picture(
        path, list(images.items()), (PICTURE_LOW, PICTURE_HIGH), best_inset(truth, 0.25)
    )
    content = path.read_bytes()
    path.unlink()
    return content
