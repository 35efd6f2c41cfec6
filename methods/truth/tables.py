"""Tables of the scores: means with their intervals, differences from the best baseline, words."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from methods.truth.opponents import Method
from methods.truth.scores import MEASURES, SLICE_FIELDS, CaseScores, of_method
from util.intervals import Interval, mean_interval

# On the screen; the files and the page have all.
SHORT = ("psnr", "ssim", "mae", "resolution", "vessels_f1", "airway_wall", "nodule_boundary",
         "spectrum")  # fmt: skip
SAID = ("psnr", "ssim", "resolution")  # in words
Summary = dict[str, dict[str, Interval]]


class Difference(NamedTuple):
    """What a model reached more than the best baseline, patient by patient."""

    baseline: str
    interval: Interval


def summarise(scores: Sequence[CaseScores]) -> Summary:
    """Mean and interval over patients: method -> measure -> interval."""
    methods = dict.fromkeys(one.method for one in scores)
    return {
        method: {name: mean_interval(of_method(scores, method, name)) for name in MEASURES}
        for method in methods
    }


def differences(
    scores: Sequence[CaseScores], methods: Sequence[Method]
) -> dict[str, dict[str, Difference]]:
    """Each model minus the baseline that is best on average: model -> measure -> difference.

    Paired: the interval is that of the patients' own differences; of measures that are best at 1,
    of their distances from it. Measures that no baseline has are left out. Oracles and the control
    are no baselines.
    """
    baselines = [method.name for method in methods if method.kind == "baseline"]
    found: dict[str, dict[str, Difference]] = {}
    for model in (method.name for method in methods if method.kind == "model"):
        found[model] = {}
        for name, measure in MEASURES.items():
            values = {one: np.array(of_method(scores, one, name)) for one in [*baselines, model]}
            if measure.larger_is_better is None:
                values = {one: np.abs(row - 1) for one, row in values.items()}
            sign = -1 if measure.larger_is_better else 1
            means = {one: sign * mean_interval(list(values[one])).mean for one in baselines}
            best = min(means, key=lambda one: np.inf if np.isnan(means[one]) else means[one])
            if not np.isnan(means[best]):
                apart = mean_interval(list(values[model] - values[best]))
                found[model][name] = Difference(best, apart)
    return found


def in_words(found: Mapping[str, Mapping[str, Difference]]) -> list[str]:
    """A line a model: its paired differences from the best baseline."""
    lines = []
    for model, row in found.items():
        parts = []
        for name in SAID:
            if name in row and known(row[name].interval):
                baseline, interval = row[name]
                what = MEASURES[name].what.split(" (")[0]
                text = cell(interval, signed=True)
                unit = f" {MEASURES[name].unit}" if MEASURES[name].unit else ""
                parts.append(f"{what} {text}{unit} ({baseline})")
        lines.append(f"{model} minus the best baseline, patient by patient: {'; '.join(parts)}")
    return lines


def format_table(summary: Summary) -> str:
    """The most telling measures for the screen, as a table in Markdown."""
    names = [name for name in SHORT if any(known(row[name]) for row in summary.values())]
    head = [title(name) for name in names]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {method} | " + " | ".join(cell(row[name]) for name in names) + " |"
        for method, row in summary.items()
    ]
    return "\n".join(lines)


def known(interval: Interval) -> bool:
    """Whether any patient has the measure."""
    return not math.isnan(interval.mean)


def title(name: str) -> str:
    """A measure with its unit."""
    what, unit, _ = MEASURES[name]
    return f"{what}, {unit}" if unit else what


def cell(interval: Interval, signed: bool = False) -> str:
    """Mean and interval, with digits that suit it; nothing where there is nothing."""
    if not known(interval):
        return ""
    digits = 3 if abs(interval.mean) < 2 else 2 if abs(interval.mean) < 100 else 1
    mean, low, high = (f"{value:{'+' if signed else ''}.{digits}f}" for value in interval)
    return f"{mean} ({low} to {high})" if math.isfinite(interval.low) else mean


def slices_csv(scores: Sequence[CaseScores]) -> str:
    """One row a patient, method, slice and region."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, SLICE_FIELDS, lineterminator="\n")
    writer.writeheader()
    for one in scores:
        writer.writerows(one.slices)
    return stream.getvalue()


def patients_csv(scores: Sequence[CaseScores]) -> str:
    """One row a patient and method."""
    rows = [[one.patient, one.group, one.method, *one.measures.values()] for one in scores]
    return as_csv([["patient", "group", "method", *MEASURES], *rows])


def curves_csv(scores: Sequence[CaseScores]) -> str:
    """One row a patient, method and frequency: the Fourier ring correlation."""
    rows = [
        [one.patient, one.method, f"{frequency:.5f}", f"{value:.5f}"]
        for one in scores
        for frequency, value in zip(*one.curve, strict=True)
    ]
    return as_csv([["patient", "method", "cycles_per_mm", "correlation"], *rows])


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """Rows of values as a CSV file's text."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
