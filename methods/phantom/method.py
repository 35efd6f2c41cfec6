"""phantomtest: super-resolution against the truth, on phantom patients that no model has seen."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.filters import unsharp_mask

from data.phantom.case import PhantomCase, benchmark_patients, read_case
from data.windows import CLINICAL_WINDOW
from methods.inputs import refuse_existing
from methods.loading import LoadedModel, load_model
from methods.pages.result_page import PAGE
from methods.phantom.pages import INPUT, NODULE, TRUTH, difference_name, write_patient_page
from methods.phantom.report import OUTPUTS, PatientPicture, write_report
from methods.phantom.scores import CaseScores, score_case
from models.inference.case_enlarger import CaseEnlarger
from models.inference.slice_jobs import SliceJob
from options.base_options import PHANTOM_FOLDER
from util.errors import UserError
from util.images.resampling import back_project, enlarge
from util.progress import progress
from util.run_record import write_run_record

UNSHARP_RADIUS = 0.75  # clinical pixels: about the kernel's own blur
UNSHARP_AMOUNT = 1.0
SHOWN = 5  # patients in the report's pictures, one of each kind

Enlarger = Callable[[PhantomCase], np.ndarray]


def interpolated(order: int) -> Enlarger:
    """Spline interpolation of an order, in HU."""
    return lambda case: np.stack([enlarge(one, case.scale, order) for one in case.clinical])


def sharpened(case: PhantomCase) -> np.ndarray:
    """Cubic interpolation with an unsharp mask, in HU: what a viewer's sharpening does."""
    return np.stack(
        [
            unsharp_mask(one, UNSHARP_RADIUS * case.scale, UNSHARP_AMOUNT, preserve_range=True)
            for one in interpolated(3)(case)
        ]
    )


BASELINES: dict[str, Enlarger] = {
    "nearest": interpolated(0),
    "linear": interpolated(1),
    "cubic": interpolated(3),
    "cubic, unsharp mask": sharpened,
}


def phantom_benchmark(options: Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    results = Path(options.results_dir)
    # The page may be another method's, which is kept under its name.
    refuse_existing([results / name for name in OUTPUTS if name != PAGE], options.overwrite)
    models = load_models(options)
    scale = common_scale(models)
    if options.input:
        folders = [Path(word) for word in options.input]
    else:
        folder = Path(PHANTOM_FOLDER) / f"benchmark_x{scale}"
        processes = os.cpu_count() or 1
        folders = benchmark_patients(folder, scale, options.patients, processes, print)
    methods = dict(BASELINES)
    methods |= {name: restored_by(model, options.self_ensemble) for name, model in models.items()}
    scores: list[CaseScores] = []
    seconds = dict.fromkeys(methods, 0.0)
    pictures: list[PatientPicture] = []
    first = next(iter(models))
    device = str(models[first].resolver.device)
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    for folder in progress(folders, "phantom", unit="patient"):
        case = read_case(folder, cache_dir)
        if case.scale != scale:
            raise UserError(
                f"{folder} has a truth {case.scale} times as fine, the model enlarges {scale} "
                "times: give patients of its scale"
            )
        enlarged = {}
        for name, method in methods.items():
            start = time.perf_counter()
            enlarged[name] = method(case)
            seconds[name] += time.perf_counter() - start
            if options.consistency and name in models:
                enlarged[consistent_name(name)] = made_consistent(enlarged[name], case)
        scores += score_case(case, enlarged, CLINICAL_WINDOW)
        if len(pictures) < SHOWN:
            middle = len(case.truth) // 2
            shown = {INPUT: case.clinical[middle]}
            shown |= {name: volume[middle] for name, volume in enlarged.items()}
            shown[TRUTH] = case.truth[middle]
            page = write_patient_page(options, results, case, enlarged, first, device)
            pictures.append(PatientPicture(f"{case.name}, {case.disease}", shown, page))
    table = write_report(results, scores, list(models), pictures, CLINICAL_WINDOW)
    write_run_record(
        results / "phantom_run.json",
        vars(options),
        device,
        method=options.method,
        input=[str(folder) for folder in folders],
        outputs=[str(results / name) for name in OUTPUTS],
        models={name: model.facts() for name, model in models.items()},
        window=CLINICAL_WINDOW.as_dict(),
        seconds=seconds,
    )
    print(f"\n{len(folders)} patients; mean with 95 % bootstrap interval over patients\n{table}")
    print(f"wrote {results / 'index.html'} and {', '.join(OUTPUTS)}")
    return 0


def load_models(options: Namespace) -> dict[str, LoadedModel]:
    """The models that --checkpoints names, by label; else the one that the other options name.

    Raises:
        UserError: two of them have one label, a label is a name that the tables or pages need
            themselves, or a model cannot be loaded.
    """
    if not options.checkpoints:
        return {"SR": load_model(options)}
    models: dict[str, LoadedModel] = {}
    taken = {*BASELINES, INPUT, TRUTH, NODULE}
    for word in options.checkpoints:
        label, sign, path = word.partition("=")
        if Path(word).is_file() or not sign:  # a path may hold the sign too
            label, path = "", word
        label = label or Path(path).parent.name or Path(path).stem
        names = (label, consistent_name(label), difference_name(label))
        for name in names:
            if name in taken:
                raise UserError(
                    f"--checkpoints {word}: there is a {name} already: give LABEL=FILE with another"
                )
        taken.update(names)
        models[label] = load_model(Namespace(**{**vars(options), "checkpoint": path}))
    return models


def consistent_name(name: str) -> str:
    """What the tables call a model's result after back-projection."""
    return f"{name}, consistent"


def common_scale(models: dict[str, LoadedModel]) -> int:
    """The scale of all models.

    Raises:
        UserError: they differ.
    """
    scales = {name: model.scale for name, model in models.items()}
    if len(set(scales.values())) > 1:
        words = ", ".join(f"{name} {scale}x" for name, scale in scales.items())
        raise UserError(f"the models enlarge differently ({words}): give those of one scale")
    return next(iter(scales.values()))


def restored_by(model: LoadedModel, self_ensemble: bool) -> Enlarger:
    """Super-resolution by a model, in HU."""

    def restore(case: PhantomCase) -> np.ndarray:
        window = model.windows.clinical
        enlarger = CaseEnlarger(model.resolver, self_ensemble)

        def jobs() -> list[SliceJob]:
            return [
                SliceJob(window.to_unit(one), mask if model.lung_statistics else None)
                for one, mask in zip(case.clinical, case.mask, strict=True)
            ]

        if model.norm_scope == "volume":
            enlarger.gather(jobs)
        units = [one.unit for one in enlarger.enlarge(jobs()) if one is not None]
        return np.stack([window.to_physical(unit) for unit in units])

    return restore


def made_consistent(volume: np.ndarray, case: PhantomCase) -> np.ndarray:
    """A result after back-projection onto its input, inside the window; HU."""
    unit = CLINICAL_WINDOW
    return np.stack(
        [
            unit.to_physical(back_project(unit.to_unit(image), unit.to_unit(low), case.scale))
            for image, low in zip(volume, case.clinical, strict=True)
        ]
    )
