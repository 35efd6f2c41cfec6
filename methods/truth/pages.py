"""The page of one phantom patient: every method of the benchmark beside the truth."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.truth_case import TruthCase
from data.volumes.geometry import shrunk_affine
from data.windows import CLINICAL_WINDOW
from methods.pages.case_view import CaseImages, Overlay, case_viewer, focus_of
from methods.pages.excerpt import Layer, Slices
from methods.pages.result_page import BYTES_PER_MB, PAGE, case_page, may_fail
from util.files import write_text
from util.run_record import run_record

INPUT, TRUTH, CUBIC, NODULE = "clinical CT", "truth", "cubic", "nodule"
LEAST_DIFFERENCE = 50.0  # HU below which the overlay is clear: a tenth of septum against air


def difference_name(model: str) -> str:
    """What the page calls the difference of a model's result from the truth."""
    return f"difference of {model}"


def write_patient_page(
    options: Namespace,
    folder: Path,
    case: TruthCase,
    enlarged: Mapping[str, np.ndarray],
    model: str,
    device: str,
) -> str | None:
    """Write patients/NAME.html into a folder; returns that path, None where there is no page.

    Args:
        options: method, page_mb and debug are used.
        folder: of the benchmark's results.
        case: the patient.
        enlarged: (slices, rows, columns) in HU by method, among them "cubic" and `model`.
        model: the method that is shown first.
        device: that computed.
    """
    if options.page_mb <= 0:
        return None
    record = run_record(vars(options), device, method=options.method, input=case.name)
    name = f"patients/{case.name}.html"
    written = None
    with may_fail("page", options.debug):
        viewer = case_viewer(patient_images(case, enlarged, model), options.page_mb * BYTES_PER_MB)
        title = f"{case.name}, {case.group.replace('_', ' ')}"
        text = case_page(
            title, options.method, record, viewer, [], folder / name, {"all patients": f"../{PAGE}"}
        )
        write_text(folder / name, text)
        written = name
    return written


def patient_images(case: TruthCase, enlarged: Mapping[str, np.ndarray], model: str) -> CaseImages:
    """A patient's volumes for the viewer; see `write_patient_page`."""
    slices, rows, columns = case.clinical.shape
    low = shrunk_affine(case.affine, case.scale)
    layers = [
        Layer(INPUT, 1, low),
        *(Layer(name, case.scale, case.affine) for name in (*enlarged, TRUTH)),
    ]
    difference = Layer(difference_name(model), case.scale, case.affine)
    overlays = [
        Overlay(difference, f"Absolute difference of {model} from the truth.", low=LEAST_DIFFERENCE)
    ]
    nodule = case.regions.get("nodule")
    if nodule is not None:
        overlays.append(
            Overlay(Layer(NODULE, case.scale, case.affine), "Nodule of the truth.", "", "red")
        )

    def read(indices: Sequence[int]) -> Iterator[Slices]:
        for index in indices:
            found = {INPUT: case.clinical[index], TRUTH: case.truth[index]}
            found |= {name: volume[index] for name, volume in enlarged.items()}
            found[difference.name] = np.abs(enlarged[model][index] - case.truth[index])
            if nodule is not None:
                found[NODULE] = nodule[index]
            yield found

    shown = slices // 2
    focus = focus_of(shown, case.clinical[shown], CLINICAL_WINDOW, case.mask[shown])
    return CaseImages(
        (columns, rows, slices),
        layers,
        overlays,
        read,
        focus,
        CLINICAL_WINDOW,
        (model, TRUTH),
        (CUBIC, model),
    )
