"""--compare: several results of one case on one page, their views in step, with a table."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dominate import tags

from data.excerpt import Layer, Slices
from data.nifti import NiftiLayout
from data.nifti_slices import nifti_slices, read_layout
from data.windows import IntensityWindow
from methods.case_view import CaseImages, Overlay, case_viewer, focus_of
from methods.loading import refuse_existing
from methods.result_images import CUBIC, INPUT, LEAST_DIFFERENCE, TRUTH
from methods.result_page import BYTES_PER_MB, NOTE, chosen_facts
from util.errors import UserError
from util.files import write_text
from util.metrics import inconsistency, sharpness
from util.page_parts import facts_table, new_page, table, text_of
from util.resampling import enlarge
from util.viewer_page import viewer_nodes, viewer_style

PAGE = "compare.html"
MOST_PANES = 4
MEASURED_SLICES = 16  # evenly spaced: enough for a table, and a large result is read in seconds
SAME_PLACE = 1e-3  # mm, or relative to it
MEASURES = {
    "sharpness": "sharpness / {first}'s",
    "consistency": "averaged, difference from the input",
    "difference": "difference from {first}",
}
SCORES = {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4)}  # title, digits


@dataclass(frozen=True)
class Result:
    """What a test method left of a case.

    Attributes:
        label: as the page calls it.
        record: its run record.
        fine: file of the super-resolved volume.
        coarse: file of its input.
        truth: file of the truth; None where there is none.
        scores: PSNR and SSIM of the whole volume; empty where there is no truth.
    """

    label: str
    record: Mapping[str, Any]
    fine: Path
    coarse: Path
    truth: Path | None
    scores: Mapping[str, float]


def compare(options: Namespace) -> int:
    """Write compare.html into --results_dir; returns the exit code.

    Raises:
        UserError: fewer than two results, a folder that holds none, or results of other cases.
    """
    path = Path(options.results_dir) / PAGE
    refuse_existing([path], options.overwrite)
    results = [read_result(label, folder) for label, folder in named_folders(options.compare)]
    layout = same_case(results)
    measures = measure(results)
    images = compared_images(results, layout)
    viewer = case_viewer(images, options.page_mb * BYTES_PER_MB)
    page = new_page(f"{len(results)} results of {case_of(results[0])}", viewer_style())
    for node in viewer_nodes(viewer):
        page.body.add(node)
    page.body.add(tags.p(NOTE, cls="note"))
    page.body.add(tags.h2("Measures"))
    page.body.add(measures_table(results, measures))
    for result in results:
        page.body.add(tags.h2(result.label))
        page.body.add(facts_table(chosen_facts(result.record)))
    write_text(path, text_of(page))
    print(f"open {path} in a browser to compare {', '.join(one.label for one in results)}")
    return 0


def named_folders(words: Sequence[str]) -> list[tuple[str, Path]]:
    """(label, folder) of each FOLDER or LABEL=FOLDER; a folder's name is its label otherwise.

    Raises:
        UserError: fewer than two, or two of one label.
    """
    named: list[tuple[str, Path]] = []
    for word in words:
        label, _, place = word.rpartition("=")
        folder = Path(place)
        label = label or folder.resolve().name
        if label in dict(named):
            raise UserError(
                f"--compare {word}: there is a {label} already: give LABEL=FOLDER with another"
            )
        named.append((label, folder))
    if len(named) < 2:
        raise UserError(f"--compare got {len(named)} result, expected two or more folders")
    return named


def read_result(label: str, folder: Path) -> Result:
    """What a results folder holds: a super-resolved case, else one that was restored.

    Raises:
        UserError: none of them, or its files are gone.
    """
    names = {
        "run.json": ("", "clinical", None),
        "clinical_run.json": ("clinical_", "LR", "HR"),
        "micro_run.json": ("micro_", "LR", "HR"),
    }
    for name, (prefix, coarse, truth) in names.items():
        if not (folder / name).is_file():
            continue
        try:
            record = json.loads((folder / name).read_text(encoding="utf-8"))
            files = {Path(one).name: folder / Path(one).name for one in record["outputs"]}
            scores = record.get("scores", {}).get("SR", {})
            fine = next(iter(files)) if not prefix else f"{prefix}SR.nii.gz"
            ending = ".nii.gz" if fine.endswith(".gz") else ".nii"
            return Result(
                label,
                record,
                files[fine],
                files[f"{prefix}{coarse}{ending}"],
                None if truth is None else files[f"{prefix}{truth}{ending}"],
                scores,
            )
        except (OSError, ValueError, KeyError, AttributeError, StopIteration) as error:
            raise UserError(f"{folder / name} cannot be read ({error!r}): run it again") from error
    raise UserError(
        f"{folder} holds no result (run.json is missing): give a --results_dir of medicaltest.py"
    )


def same_case(results: Sequence[Result]) -> NiftiLayout:
    """The layout of the input that all results share.

    Raises:
        UserError: they are of other cases, scales or kinds.
    """
    first = results[0]
    coarse, fine = read_layout(first.coarse), read_layout(first.fine)
    for other in results[1:]:
        for mine, theirs, what in (
            (coarse, read_layout(other.coarse), "inputs"),
            (fine, read_layout(other.fine), "results"),
        ):
            if mine.shape != theirs.shape or not np.allclose(
                mine.affine, theirs.affine, rtol=SAME_PLACE, atol=SAME_PLACE
            ):
                raise UserError(
                    f"--compare: the {what} of {first.label} and {other.label} differ in size or "
                    f"place ({mine.shape} and {theirs.shape}): give results of one case and scale"
                )
        if (first.truth is None) != (other.truth is None):
            raise UserError(
                f"--compare: {first.label} and {other.label} were made by different methods: give "
                "results of one"
            )
    return coarse


def case_of(result: Result) -> str:
    """Name of the case that a result was made of."""
    return Path(str(result.record.get("input", result.coarse))).name


def scale_of(result: Result) -> int:
    """2^n of a result."""
    return int(result.record["scale"])


def compared_images(results: Sequence[Result], layout: NiftiLayout) -> CaseImages:
    """All results for the viewer, with the differences of each from the first, or the truth."""
    first = results[0]
    scale = scale_of(first)
    fine = read_layout(first.fine)
    slices, rows, columns = fine.shape
    shared = [Layer(INPUT, 1, layout.affine), Layer(CUBIC, scale, fine.affine)]
    layers = [*shared, *(Layer(one.label, scale, fine.affine) for one in results)]
    if first.truth is not None:
        layers.append(Layer(TRUTH, scale, fine.affine))
    reference = first.label if first.truth is None else TRUTH
    compared = [one.label for one in results if one.label != reference]
    overlays = [
        Overlay(
            Layer(f"{label} - {reference}", scale, fine.affine),
            f"Absolute difference of {label} from {reference}.",
            low=LEAST_DIFFERENCE,
        )
        for label in compared
    ]

    def read(indices: Sequence[int]) -> Iterator[Slices]:
        for found in read_all(results, indices):
            found[CUBIC] = enlarge(found[INPUT], scale, order=3)[:rows, :columns]
            for label in compared:
                found[f"{label} - {reference}"] = np.abs(found[label] - found[reference])
            yield found

    shown = slices // 2
    window = IntensityWindow(**first.record["window"])
    focus = focus_of(shown, next(nifti_slices(first.coarse, [shown])), window, None)
    panes = [one.label for one in results][:MOST_PANES]
    if first.truth is not None and len(panes) < MOST_PANES:
        panes.append(TRUTH)
    unit = "" if first.coarse.name.startswith("micro") else "HU"
    size = (layout.shape[2], layout.shape[1], slices)
    swipe = (results[0].label, results[1].label)
    return CaseImages(size, layers, overlays, read, focus, window, panes, swipe, unit)


def read_all(results: Sequence[Result], indices: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
    """Slices of the input, of every result and of the truth by name, one slice after the other."""
    files = {INPUT: results[0].coarse} | {one.label: one.fine for one in results}
    if results[0].truth is not None:
        files[TRUTH] = results[0].truth
    streams = [nifti_slices(path, indices) for path in files.values()]
    for images in zip(*streams, strict=True):
        yield dict(zip(files, images, strict=True))


def measure(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """What `MEASURES` names, by label: means over some slices of the whole field of view."""
    scale = scale_of(results[0])
    slices, rows, columns = read_layout(results[0].fine).shape
    indices = np.linspace(0, slices - 1, min(slices, MEASURED_SLICES)).astype(int).tolist()
    whole = rows - rows % scale, columns - columns % scale
    sums = {one.label: np.zeros(3) for one in results}
    for found in read_all(results, indices):
        low = found[INPUT][: whole[0] // scale, : whole[1] // scale]
        for one in results:
            image = found[one.label]
            sums[one.label] += [
                sharpness(image, found[results[0].label]),
                inconsistency(image[: whole[0], : whole[1]], low, scale),
                np.abs(image - found[results[0].label]).mean(),
            ]
    return {
        label: dict(zip(MEASURES, total / len(indices), strict=True))
        for label, total in sums.items()
    }


def measures_table(
    results: Sequence[Result], measures: Mapping[str, Mapping[str, float]]
) -> tags.table:
    """One row a result; PSNR and SSIM where the truth is known."""
    scored = [name for name in SCORES if all(name in one.scores for one in results)]
    rows = [
        [
            one.label,
            *(f"{float(one.scores[name]):.{SCORES[name][1]}f}" for name in scored),
            *(f"{value:.2f}" for value in measures[one.label].values()),
        ]
        for one in results
    ]
    first = results[0].label
    head = ["result", *(SCORES[name][0] for name in scored)]
    return table([*head, *(title.format(first=first) for title in MEASURES.values())], rows)
