"""Results that stand in folders: which files a test method left there, and whether they match."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.formats.nifti import NiftiLayout, read_layout
from data.formats.nifti_slices import nifti_slices
from data.windows import IntensityWindow
from methods.pages.result_images import CONSISTENT, CUBIC, INPUT, TRUTH
from util.errors import UserError

SAME_PLACE = 1e-3  # mm, or relative to it
# Record of a run: first word of its files, its input, its truth, the unit of its values.
RECORDS = {
    "run.json": ("", "clinical", None, "HU"),
    "clinical_run.json": ("clinical_", "LR", "HR", "HU"),
    "micro_run.json": ("micro_", "LR", "HR", ""),
}


@dataclass(frozen=True)
class Result:
    """What a test method left of a case."""

    label: str  # as the page calls it
    record: Mapping[str, Any]  # its run record
    scale: int  # 2^n
    window: IntensityWindow  # of its model
    fine: Path  # file of the super-resolved volume
    coarse: Path  # file of its input
    truth: Path | None  # file of the truth; None where there is none
    unit: str  # of the values: "HU", or "" for micro-CT, whose scanners have their own
    scores: Mapping[str, float]  # PSNR and SSIM of the whole volume; empty where there is no truth

    @property
    def case(self) -> str:
        """Name of the input that the result was made of."""
        return Path(str(self.record.get("input", self.coarse))).name


def named_folders(words: Sequence[str]) -> list[tuple[str, Path]]:
    """(label, folder) of each FOLDER or LABEL=FOLDER; a folder's name is its label otherwise.

    Raises:
        UserError: fewer than two, two of one label, no label, or one that the page needs itself.
    """
    named: list[tuple[str, Path]] = []
    for word in words:
        label, sign, place = word.partition("=")
        if Path(word).is_dir() or not sign:
            label, place = Path(word).resolve().name, word
        if not label:
            raise UserError(f"--compare {word}: got no label, expected LABEL=FOLDER: give one")
        if label in dict(named):
            raise UserError(
                f"--compare {word}: there is a {label} already: give LABEL=FOLDER with another"
            )
        named.append((label, Path(place)))
    if len(named) < 2:
        raise UserError(f"--compare got {len(named)} result, expected two or more folders")
    labels = [label for label, _ in named]
    own = {INPUT, CUBIC, TRUTH}
    own |= {difference_name(one, other) for one in labels for other in (labels[0], TRUTH)}
    for label in labels:
        if label in own:
            raise UserError(
                f"--compare: {label} is what the page calls a volume of its own: give "
                "LABEL=FOLDER with another"
            )
    return named


def difference_name(label: str, reference: str) -> str:
    """What the page calls the difference of a result from the first, or from the truth."""
    return f"{label} - {reference}"


def read_result(label: str, folder: Path) -> Result:
    """What a results folder holds: a super-resolved case, else one that was restored.

    Raises:
        UserError: none of them, a damaged record, or its files are gone.
    """
    for name, (prefix, coarse, truth, unit) in RECORDS.items():
        if not (folder / name).is_file():
            continue
        try:
            record = json.loads((folder / name).read_text(encoding="utf-8"))
            outputs = [Path(one).name for one in record["outputs"]]
            fine = f"{prefix}SR.nii.gz" if prefix else outputs[0]
            ending = ".nii.gz" if fine.endswith(".gz") else ".nii"
            files = {one: folder / one for one in outputs}
            result = Result(
                label,
                record,
                _scale(record["scale"]),
                IntensityWindow(**record["window"]),
                files[fine],
                files[f"{prefix}{coarse}{ending}"],
                None if truth is None else files[f"{prefix}{truth}{ending}"],
                unit,
                _scores(record.get("scores", {})),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"{folder / name} cannot be read ({error!r}): run it again") from error
        for path in filter(None, (result.fine, result.coarse, result.truth)):
            if not path.is_file():
                raise UserError(f"{path} is gone, {folder / name} tells of it: run it again")
        return result
    raise UserError(
        f"{folder} holds no result (run.json is missing): give a --results_dir of medicaltest.py"
    )


def _scale(value: Any) -> int:
    # JSON's true is an int to Python, and 2.0 is none.
    if type(value) is not int or value < 2 or value & (value - 1):
        raise ValueError(f"scale is {value!r}, expected 2, 4, 8 or 16")
    return value


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    # With --consistency the written volume is the one after back-projection.
    chosen = scores.get(CONSISTENT, scores.get("SR", {}))
    return {name: float(value) for name, value in chosen.items()}  # "inf" is text in JSON


def check_same_case(results: Sequence[Result]) -> None:
    """Refuse results that do not belong side by side.

    Raises:
        UserError: they are of other cases, scales or kinds, or a volume has not the size that its
            record tells.
    """
    for one in results:
        _check_scale(one)
    first = results[0]
    coarse, fine = read_layout(first.coarse), read_layout(first.fine)
    for other in results[1:]:
        if (first.truth is None, first.unit) != (other.truth is None, other.unit):
            raise UserError(
                f"--compare: {first.label} and {other.label} were made by different methods: give "
                "results of one"
            )
        for grid, other_grid, what in (
            (coarse, read_layout(other.coarse), "inputs"),
            (fine, read_layout(other.fine), "results"),
        ):
            if not _same_grid(grid, other_grid):
                raise UserError(
                    f"--compare: the {what} of {first.label} and {other.label} differ in size or "
                    f"place ({grid.shape} and {other_grid.shape}): give results of one case and "
                    "scale"
                )
        # Scans of one protocol share a grid, so the content decides. A shrunk input is clipped to
        # its model's window, the truth is not.
        middle = coarse.shape[0] // 2
        mine, theirs = (
            next(nifti_slices(one.truth or one.coarse, [middle])) for one in (first, other)
        )
        if not np.array_equal(mine, theirs):
            raise UserError(
                f"--compare: {first.label} was made of {first.case}, {other.label} of "
                f"{other.case}, and their slice {middle} differs: give results of one case"
            )


def _check_scale(result: Result) -> None:
    slices, rows, columns = read_layout(result.fine).shape
    # A restored volume was padded to whole pixels of its input, then cut.
    expected = (slices, math.ceil(rows / result.scale), math.ceil(columns / result.scale))
    found = read_layout(result.coarse).shape
    if found != expected:
        raise UserError(
            f"{result.coarse} has the shape {found}, expected {expected}: {result.fine.name} "
            f"beside it is {result.scale} times as fine by its record: run it again"
        )


def _same_grid(one: NiftiLayout, other: NiftiLayout) -> bool:
    return one.shape == other.shape and np.allclose(
        one.affine, other.affine, rtol=SAME_PLACE, atol=SAME_PLACE
    )
