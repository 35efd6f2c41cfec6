"""The models that are scored, as rows of the tables."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from data.truth_case import TruthCase
from data.windows import CLINICAL_WINDOW
from methods.loading import LoadedModel, load_model
from methods.truth.opponents import INTERPOLATIONS, LINEAR_NAMES, Enlarge, Method
from methods.truth.pages import INPUT, NODULE, TRUTH, difference_name
from models.inference.case_enlarger import CaseEnlarger
from models.inference.slice_jobs import SliceJob
from util.errors import UserError
from util.images.intensity_window import IntensityWindow
from util.images.resampling import back_project, enlarge


def load_models(options: Namespace) -> dict[str, LoadedModel]:
    """The models that --checkpoints names, by label; else the one that the other options name.

    Raises:
        UserError: two of them have one label, a label is a name that the tables or pages need
            themselves, or a model cannot be loaded.
    """
    if not options.checkpoints:
        return {"SR": load_model(options)}
    models: dict[str, LoadedModel] = {}
    taken = {*(one.name for one in INTERPOLATIONS), *LINEAR_NAMES, INPUT, TRUTH, NODULE}
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


def restored_by(model: LoadedModel, self_ensemble: bool) -> Enlarge:
    """Super-resolution by a model, in HU; where its norms need lung and a slice shows none, cubic
    interpolation."""

    def restore(case: TruthCase) -> np.ndarray:
        window = model.windows.clinical
        if model.windows.normalization == "minmax":
            window = IntensityWindow(float(case.clinical.min()), float(case.clinical.max()))
        enlarger = CaseEnlarger(model.resolver, self_ensemble)
        shown = [mask.any() or not model.lung_statistics for mask in case.mask]

        def jobs() -> list[SliceJob]:
            return [
                SliceJob(window.to_unit(one), mask if model.lung_statistics else None, index=index)
                for index, (one, mask) in enumerate(zip(case.clinical, case.mask, strict=True))
                if shown[index]
            ]

        if model.norm_scope == "volume":
            enlarger.gather(jobs)
        restored = iter([one.unit for one in enlarger.enlarge(jobs()) if one is not None])
        return np.stack(
            [
                window.to_physical(next(restored)) if there else enlarge(one, case.scale, 3)
                for one, there in zip(case.clinical, shown, strict=True)
            ]
        )

    return restore


def made_consistent(volume: np.ndarray, case: TruthCase) -> np.ndarray:
    """A result after back-projection onto its input, inside the window; HU."""
    unit = CLINICAL_WINDOW
    return np.stack(
        [
            unit.to_physical(back_project(unit.to_unit(image), unit.to_unit(low), case.scale))
            for image, low in zip(volume, case.clinical, strict=True)
        ]
    )


def model_rows(models: dict[str, LoadedModel], options: Namespace) -> list[Method]:
    """A row a model, and one more for its result after back-projection with --consistency."""
    rows = []
    for name, model in models.items():
        restore = restored_by(model, options.self_ensemble)
        rows.append(Method(name, "model", restore))
        if options.consistency:
            rows.append(Method(consistent_name(name), "model", _consistent(restore)))
    return rows


def _consistent(restore: Enlarge) -> Enlarge:
    return lambda case: made_consistent(restore(case), case)
