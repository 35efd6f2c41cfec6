"""What phantomtest writes: tables as CSV and JSON, a figure, and one HTML page with pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dominate import tags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import bootstrap

from methods.pages.result_page import PAGE, keep_other_page, page_links
from methods.phantom.scores import MEASURES, SLICE_FIELDS, CaseScores, of_method
from util.files import atomic_path, write_json, write_text
from util.images.intensity_window import IntensityWindow
from util.images.pictures import best_inset, comparison_picture
from util.pages.page_parts import address, inline_png, new_page, table, text_of

RESAMPLES = 9999
CONFIDENCE = 0.95

OUTPUTS = (
    "phantom_slices.csv",
    "phantom_patients.csv",
    "phantom_scores.json",
    "phantom_figure.png",
    PAGE,
)
SHORT = ("psnr", "ssim", "mae", "consistency", "spectrum", "intercept", "airspace", "nodule_volume")
PICTURE_LOW, PICTURE_HIGH = -1000.0, 200.0  # HU of the pictures: lung and vessels


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; both ends are the mean where there is but one value."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean of one value a patient, with the 95 % bootstrap interval (percentiles).

    Patients are drawn with replacement, not slices, since those of one patient are alike (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993). Values that are not finite, such as a
    measure that a patient has none of, are left out.

    Args:
        values: one a patient.
        seed: of the resampling.

    Returns:
        NaN in all places where no value is finite.
    """
    known = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    if len(known) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    if np.ptp(known) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (known,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


Summary = dict[str, dict[str, Interval]]


@dataclass(frozen=True)
class PatientPicture:
    """What the page shows of one patient."""

    caption: str  # above it
    images: Mapping[str, np.ndarray]  # a slice (rows, columns) in HU by title, "truth" among them
    page: str | None = None  # file name of the patient's own page, None without one


def write_report(
    folder: Path,
    scores: Sequence[CaseScores],
    models: Sequence[str],
    pictures: Sequence[PatientPicture],
    window: IntensityWindow,
) -> str:
    """Write all files of `OUTPUTS`.

    Args:
        folder: where to.
        scores: of all patients and methods.
        models: names among the methods that are models; the others are baselines.
        pictures: of some patients.
        window: of the scores.

    Returns:
        The table for the screen.
    """
    summary = summarise(scores)
    write_text(folder / OUTPUTS[0], slices_csv(scores))
    write_text(folder / OUTPUTS[1], patients_csv(scores))
    write_json(
        folder / OUTPUTS[2],
        {
            "window": window.as_dict(),
            "measures": {name: {"what": m[0], "unit": m[1]} for name, m in MEASURES.items()},
            "all": _plain(summary),
            "by_disease": {
                disease: _plain(summarise([one for one in scores if one.disease == disease]))
                for disease in dict.fromkeys(one.disease for one in scores)
            },
        },
    )
    draw_figure(folder / OUTPUTS[3], summary, models)
    others = keep_other_page(folder / PAGE, "phantomtest")
    write_text(folder / PAGE, page(folder, summary, pictures, others))
    return format_table(summary)


def summarise(scores: Sequence[CaseScores]) -> Summary:
    """Mean and interval over patients: method -> measure -> interval."""
    methods = dict.fromkeys(one.method for one in scores)
    return {
        method: {name: bootstrap_mean(of_method(scores, method, name)) for name in MEASURES}
        for method in methods
    }


def _plain(summary: Summary) -> dict[str, dict[str, dict[str, float]]]:
    return {
        method: {name: vars(interval) for name, interval in row.items()}
        for method, row in summary.items()
    }


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
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["patient", "disease", "method", *MEASURES])
    for one in scores:
        writer.writerow([one.patient, one.disease, one.method, *one.measures.values()])
    return stream.getvalue()


def format_table(summary: Summary) -> str:
    """The most telling measures for the screen, as a table in Markdown."""
    names = [name for name in SHORT if any(_known(row[name]) for row in summary.values())]
    head = [f"{MEASURES[name][0]}{_unit(name)}" for name in names]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {method} | " + " | ".join(_cell(row[name]) for name in names) + " |"
        for method, row in summary.items()
    ]
    return "\n".join(lines)


def _known(interval: Interval) -> bool:
    return math.isfinite(interval.mean)


def _unit(name: str) -> str:
    unit = MEASURES[name][1]
    return f", {unit}" if unit else ""


def _cell(interval: Interval) -> str:
    if not _known(interval):
        return ""
    digits = 3 if abs(interval.mean) < 2 else 2 if abs(interval.mean) < 100 else 1
    mean, low, high = (f"{value:.{digits}f}" for value in vars(interval).values())
    return f"{mean} ({low} to {high})"


def draw_figure(path: Path, summary: Summary, models: Sequence[str]) -> None:
    """Perception against distortion (Blau and Michaeli, CVPR 2018): both axes are better low.

    Across: mean absolute error. Up: distance of the radial power spectrum. Lines are the 95 %
    intervals.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method, row in summary.items():
        across, up = row["mae"], row["spectrum"]
        is_model = any(method == name or method.startswith(f"{name},") for name in models)
        axes.errorbar(
            across.mean,
            up.mean,
            xerr=[[across.mean - across.low], [across.high - across.mean]],
            yerr=[[up.mean - up.low], [up.high - up.mean]],
            fmt="o" if is_model else "s",
            markersize=8,
            capsize=3,
            label=method,
            markerfacecolor=None if is_model else "white",
        )
    axes.set_xlabel("distortion: mean absolute error, HU")
    axes.set_ylabel("perception: distance of the power spectrum, dB")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def page(
    folder: Path,
    summary: Summary,
    pictures: Sequence[PatientPicture],
    others: Mapping[str, str],
) -> str:
    """One HTML file with everything in it: table, figure, pictures with a magnified detail."""
    document = new_page("Phantom benchmark", method="phantomtest")
    body = document.body
    for node in page_links(others):
        body.add(node)
    body.add(tags.p("Mean over patients with the 95 % bootstrap interval."))
    body.add(_table(summary))
    body.add(tags.h2("Perception against distortion"))
    body.add(inline_png((folder / OUTPUTS[3]).read_bytes(), "perception against distortion"))
    for one in pictures:
        body.add(tags.h2(one.caption))
        if one.page is not None:
            body.add(tags.p(tags.a("look at its volumes", href=address(one.page))))
        body.add(inline_png(_comparison(folder, one.images), one.caption))
    return text_of(document)


def _table(summary: Summary) -> tags.table:
    rows = []
    for name, (what, unit, larger) in MEASURES.items():
        wish = "nearest to 1" if larger is None else "higher" if larger else "lower"
        title = f"{what}{', ' + unit if unit else ''} ({wish} is better)"
        rows.append([title, *(_cell(row[name]) for row in summary.values())])
    return table(["measure", *summary], rows)


def _comparison(folder: Path, images: Mapping[str, np.ndarray]) -> bytes:
    """PNG of a patient's images side by side."""
    path = folder / "phantom_preview.png"
    truth = images["truth"].clip(PICTURE_LOW, PICTURE_HIGH)
    panels = list(images.items())
    comparison_picture(path, panels, (PICTURE_LOW, PICTURE_HIGH), best_inset(truth, 0.25))
    content = path.read_bytes()
    path.unlink()
    return content
