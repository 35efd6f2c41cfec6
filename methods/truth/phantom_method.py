"""phantomtest: super-resolution against the truth, on phantom patients that no model has seen."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from data.phantom.anatomy.patient import VERSION
from data.phantom.case import fixed_patients, read_case, scanner_of
from data.phantom.pair import DEFAULT_SIZE, PairPlan
from data.phantom.scanners import ClinicalScanner
from data.scan_properties import PHANTOM_VERSION
from data.truth_case import TruthCase
from methods.loading import LoadedModel
from methods.truth.benchmark import Benchmark, refuse_outputs
from methods.truth.models import common_scale, load_models, model_rows
from methods.truth.opponents import INTERPOLATIONS, Method, filters
from methods.truth.scanner_matrix import (
    GRID,
    OTHER_PIXELS,
    OTHER_SPECTRA,
    Scanner,
    ScannerMatrix,
    measure_matrix,
)
from options.base_options import PHANTOM_FOLDER
from util.errors import UserError
from util.progress import progress

FILTER_PATIENTS = 5  # that the linear filters are learned from, one of each kind
FILTER_SIZE = (48, 48, 8)  # clinical voxels
PIXEL_PATIENTS = 5  # scanned with pixels of other sizes, one of each kind
PIXEL_SIZE = (40, 40, 4)
LARGEST_WHOLE = 8  # scale up to which a patient of the usual size can be rendered


def phantom_benchmark(options: Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    refuse_outputs(options)
    models = load_models(options)
    scale = common_scale(models)
    say_versions(models)
    # Whatever does not fit is told before minutes of rendering.
    given = [Path(word) for word in options.input or []]
    cache_dir = Path(options.cache_dir) if options.cache_dir else None

    def read(folders: Sequence[Path]) -> Iterator[TruthCase]:
        for folder in folders:
            yield fitting(read_case(folder, cache_dir), folder, scale)

    for _ in read(given):
        pass
    template = benchmark_plan(scale)
    folders = given or patients(template, "benchmark", options.patient_set, options.patients)
    known = all(scanner_of(folder) == template.clinical for folder in folders)
    methods = [*INTERPOLATIONS, *linear_methods(template, known), *model_rows(models, options)]
    benchmark = Benchmark(options, models, methods)
    benchmark.add(read(folders), len(folders))
    matrix = None
    if options.scanners:
        matrix = scanner_matrix(methods, folders, read, template, options.patient_set)
    facts = {
        "phantom_version": VERSION,
        "patient_set": None if given else options.patient_set,
    }
    benchmark.write([str(folder) for folder in folders], facts, matrix)
    return 0


def benchmark_plan(scale: int) -> PairPlan:
    """The benchmark's patients, but for seed and disease; at 16x half as many slices, which are as
    many voxels as a rendering may have."""
    columns, rows, slices = DEFAULT_SIZE
    size = (columns, rows, slices if scale <= LARGEST_WHOLE else slices // 2)
    return PairPlan(0, scale=scale, size=size, with_micro=False)


def fitting(case: TruthCase, folder: Path, scale: int) -> TruthCase:
    """The case, where its truth is as fine as the model enlarges."""
    if case.scale != scale:
        raise UserError(
            f"{folder} has a truth {case.scale} times as fine, the model enlarges {scale} "
            "times: give patients of its scale"
        )
    return case


def patients(template: PairPlan, name: str, patient_set: str, count: int) -> list[Path]:
    """Folders of fixed patients below datasets/phantom, made where they are missing."""
    folder = Path(PHANTOM_FOLDER) / f"{name}_x{template.scale}"
    return fixed_patients(folder, template, patient_set, count, os.cpu_count() or 1, print)


def linear_methods(template: PairPlan, known: bool) -> list[Method]:
    """Linear filters learned from patients of their own, the oracles where the scanner of all
    that are scored is theirs."""
    plan = replace(template, size=FILTER_SIZE)
    cases = [read_case(folder) for folder in patients(plan, "filter", "filter", FILTER_PATIENTS)]
    return filters(cases, known)


def scanner_matrix(
    methods: Sequence[Method],
    folders: Sequence[Path],
    read: Callable[[Sequence[Path]], Iterator[TruthCase]],
    template: PairPlan,
    patient_set: str,
) -> ScannerMatrix:
    """Scores on other scanners, and on pixels of other sizes."""
    scans: list[tuple[Scanner, list[Path]]] = []
    for scanner, pixel in OTHER_PIXELS.items():
        clinical = ClinicalScanner(pixel=pixel)
        plan = replace(template, size=PIXEL_SIZE, clinical=clinical)
        name = f"pixel{pixel:g}"
        scans.append((scanner, patients(plan, name, patient_set, PIXEL_PATIENTS)))
    others = ((scanner, case) for scanner, places in scans for case in read(places))
    total = len(folders) * len((*GRID, *OTHER_SPECTRA)) + len(OTHER_PIXELS) * PIXEL_PATIENTS
    bar: tqdm[None]
    with progress((), "scanners", "scan", total=total) as bar:
        return measure_matrix(methods, read(folders), others, bar.update)


def say_versions(models: dict[str, LoadedModel]) -> None:
    """Say which version of the phantom each model was trained on."""
    for name, model in models.items():
        seen = sorted(set((model.loaded.scans or {}).get(PHANTOM_VERSION, [])))
        words = " and ".join(f"{version:g}" for version in seen)
        said = f"version {words}" if seen else "no version that its weights tell"
        print(f"{name} was trained on {said} of the phantom; this is version {VERSION}")
