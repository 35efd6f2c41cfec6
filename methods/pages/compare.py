"""--compare: several results of one case on one page, their views in step, with a table."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from dominate import tags

from data.formats.nifti import read_layout
from data.formats.nifti_slices import nifti_slices
from methods.inputs import refuse_existing
from methods.pages.case_view import CaseImages, Overlay, case_viewer, focus_of
from methods.pages.compared_results import (
    Result,
    check_same_case,
    difference_name,
    named_folders,
    read_result,
)
from methods.pages.excerpt import Layer, Slices
from methods.pages.result_images import CUBIC, INPUT, TRUTH, least_difference
from methods.pages.result_page import BYTES_PER_MB, NOTE, chosen_facts
from util.files import write_text
from util.images.metrics import inconsistency, sharpness
from util.images.resampling import enlarge
from util.pages.page_parts import facts_table, new_page, table, text_of
from util.pages.viewer_page import viewer_nodes, viewer_style

PAGE = "compare.html"
MOST_PANES = 4
MEASURED_SLICES = 16  # evenly spaced: enough for a table, and a large result is read in seconds
MEASURES = {
    "sharpness": "sharpness / {first}'s",
    "consistency": "averaged, difference from the input{unit}",
    "difference": "difference from {first}{unit}",
}
SCORES = {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4)}  # title, digits


def compare(options: Namespace) -> int:
    """Write compare.html into --results_dir; returns the exit code.

    Raises:
        UserError: fewer than two results, a folder that holds none, or results of other cases.
    """
    path = Path(options.results_dir) / PAGE
    refuse_existing([path], options.overwrite)
    results = [read_result(label, folder) for label, folder in named_folders(options.compare)]
    check_same_case(results)
    measures = measure(results)
    viewer = case_viewer(compared_images(results), options.page_mb * BYTES_PER_MB)
    page = new_page(f"{len(results)} results of {results[0].case}", viewer_style())
    for node in viewer_nodes(viewer):
        page.body.add(node)
    page.body.add(tags.p(NOTE, cls="note"))
    page.body.add(tags.h2("Measures"))
    page.body.add(measures_table(results, measures))
    for result in results:
        page.body.add(tags.h2(result.label))
        page.body.add(facts_table(chosen_facts(result.record)))
    write_text(path, text_of(page), shared=True)
    print(f"open {path} in a browser to compare {', '.join(one.label for one in results)}")
    return 0


def compared_images(results: Sequence[Result]) -> CaseImages:
    """All results for the viewer, with the differences of each from the first, or the truth."""
    first = results[0]
    coarse, fine, scale = read_layout(first.coarse), read_layout(first.fine), first.scale
    slices, rows, columns = fine.shape
    layers = [Layer(INPUT, 1, coarse.affine)]
    names = [CUBIC, *(one.label for one in results), *([] if first.truth is None else [TRUTH])]
    layers += [Layer(name, scale, fine.affine) for name in names]
    reference = first.label if first.truth is None else TRUTH
    # Labels of the results that have a difference, and its name.
    compared = {
        one.label: difference_name(one.label, reference)
        for one in results
        if one.label != reference
    }
    overlays = [
        Overlay(
            Layer(name, scale, fine.affine),
            f"Absolute difference of {label} from {reference}.",
            first.unit,
            low=least_difference(first.unit, first.window),
        )
        for label, name in compared.items()
    ]

    def read(indices: Sequence[int]) -> Iterator[Slices]:
        for found in read_all(results, indices):
            found[CUBIC] = enlarge(found[INPUT], scale, order=3)[:rows, :columns]
            for label, name in compared.items():
                found[name] = np.abs(found[label] - found[reference])
            yield found

    shown = slices // 2
    focus = focus_of(shown, next(nifti_slices(first.coarse, [shown])), first.window, None)
    panes = [one.label for one in results][:MOST_PANES]
    if first.truth is not None and len(panes) < MOST_PANES:
        panes.append(TRUTH)
    size = (coarse.shape[2], coarse.shape[1], slices)
    swipe = (results[0].label, results[1].label)
    return CaseImages(size, layers, overlays, read, focus, first.window, panes, swipe, first.unit)


def read_all(results: Sequence[Result], indices: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
    """Slices of the input, of every result and of the truth by name, one slice after the other."""
    files = {INPUT: results[0].coarse} | {one.label: one.fine for one in results}
    if results[0].truth is not None:
        files[TRUTH] = results[0].truth
    streams = [nifti_slices(path, indices) for path in files.values()]
    for images in zip(*streams, strict=True):
        yield dict(zip(files, images, strict=True))


def measure(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """What `MEASURES` names, by label: means over some slices of the whole field of view.

    Sharpness is NaN where no slice of the first result shows anything.
    """
    scale = results[0].scale
    slices, rows, columns = read_layout(results[0].fine).shape
    indices = np.linspace(0, slices - 1, min(slices, MEASURED_SLICES)).astype(int).tolist()
    whole = rows - rows % scale, columns - columns % scale
    rows_of: dict[str, list[list[float]]] = {one.label: [] for one in results}
    inputs = [nifti_slices(one.coarse, indices) for one in results]
    for found, *lows in zip(read_all(results, indices), *inputs, strict=True):
        reference = found[results[0].label]
        flat = np.ptp(reference) == 0  # air: nothing to be as sharp as
        for one, low in zip(results, lows, strict=True):
            image = found[one.label]
            inside = low[: whole[0] // scale, : whole[1] // scale]
            rows_of[one.label].append(
                [
                    np.nan if flat else sharpness(image, reference),
                    inconsistency(image[: whole[0], : whole[1]], inside, scale),
                    float(np.abs(image - reference).mean()),
                ]
            )
    return {
        label: dict(zip(MEASURES, _means(np.array(values)), strict=True))
        for label, values in rows_of.items()
    }


def _means(values: np.ndarray) -> list[float]:
    """Means of the columns (slices, measures) over the slices that have a value."""
    known = np.isfinite(values)
    return [
        float(column[there].mean()) if there.any() else float("nan")
        for column, there in zip(values.T, known.T, strict=True)
    ]


def measures_table(
    results: Sequence[Result], measures: Mapping[str, Mapping[str, float]]
) -> tags.table:
    """One row a result; PSNR and SSIM where the truth is known."""
    scored = [name for name in SCORES if all(name in one.scores for one in results)]
    rows = [
        [
            one.label,
            *(f"{one.scores[name]:.{SCORES[name][1]}f}" for name in scored),
            *("-" if np.isnan(value) else f"{value:.2f}" for value in measures[one.label].values()),
        ]
        for one in results
    ]
    first = results[0]
    unit = f", {first.unit}" if first.unit else ""
    titles = [title.format(first=first.label, unit=unit) for title in MEASURES.values()]
    return table(["result", *(SCORES[name][0] for name in scored), *titles], rows)
