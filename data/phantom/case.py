"""Phantom patients with their truth, read back; and the fixed ones of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data.formats.readers import read_volume
from data.phantom.anatomy.disease import DISEASES
from data.phantom.pair import FILES, RECORD, PairPlan, is_there, refuse_version, write_pair
from data.phantom.scanners import ClinicalScanner
from data.truth_case import TruthCase
from data.volumes.volume import Volume
from util.errors import UserError

# First seed of each set of patients: those by which is chosen, those on which is reported, and
# those that linear filters are learned from. train.py's phantom has seeds up to 31 + 100 * seed,
# the shipped weights were trained on 101 to 105 and 201 to 210.
FIRST_SEEDS = {"validation": 401, "test": 301, "filter": 501}
DISEASES_IN_TURN = tuple(DISEASES)


def read_case(folder: Path, cache_dir: Path | None = None) -> TruthCase:
    """Read what `python -m data.phantom` wrote.

    Raises:
        UserError: the folder holds no phantom patient.
    """
    plan = _plan_of(folder)
    scale, disease = int(plan["scale"]), plan["disease"]
    clinical, mask, truth, thin, labels = (read_volume(folder / name, cache_dir) for name in FILES)
    names = [name for name, one in DISEASES.items() if disease == json.loads(json.dumps(vars(one)))]
    return TruthCase(
        folder.name,
        names[0] if names else "other",
        voxels(clinical),
        voxels(mask) != 0,
        voxels(truth),
        voxels(thin),
        voxels(labels).astype(np.uint8),
        truth.affine,
        scale,
    )


def scanner_of(folder: Path) -> ClinicalScanner:
    """The clinical scanner that saw a patient; errors as `read_case`."""
    return ClinicalScanner(**_plan_of(folder)["clinical"])


def _plan_of(folder: Path) -> dict[str, Any]:
    """What a complete patient was made by."""
    record = folder / RECORD
    if not record.is_file():
        raise UserError(
            f"{folder} holds no phantom patient ({RECORD} is missing): make one with "
            f"python -m data.phantom --out {folder} --seed N"
        )
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        plan, complete = dict(told["plan"]), told["complete"]
        refuse_version(folder, plan)
        int(plan["scale"]), plan["disease"], ClinicalScanner(**plan["clinical"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} cannot be read ({error}): make the patient anew") from error
    if not complete:
        raise UserError(f"{folder} is not complete: run python -m data.phantom again")
    return plan


def voxels(volume: Volume) -> np.ndarray:
    """A whole volume in memory, float32 (slices, rows, columns)."""
    slices = [volume.read_slice(index) for index in range(volume.num_slices)]
    return np.stack(slices).astype(np.float32)


def fixed_patients(
    folder: Path,
    template: PairPlan,
    patient_set: str,
    count: int,
    processes: int,
    say: Callable[[str], None],
) -> list[Path]:
    """Fixed patients, made where they are missing: folders by seed.

    Kinds take turns: healthy, emphysema, fibrosis, solid and ground-glass nodule.

    Args:
        folder: where they lie.
        template: all but seed and disease of their plans.
        patient_set: a name of FIRST_SEEDS.
        count: how many, from 1.
        processes: at once for one patient.
        say: takes a line about each that has to be made.
    """
    folders = []
    for number in range(count):
        seed, disease = (
            FIRST_SEEDS[patient_set] + number,
            DISEASES_IN_TURN[number % len(DISEASES_IN_TURN)],
        )
        place = folder / f"seed{seed}_{disease}"
        plan = replace(template, seed=seed, disease=DISEASES[disease])
        if not is_there(place, plan.as_json()):
            say(f"phantom: making {patient_set} patient {number + 1} of {count}, {disease} (once)")
        folders.append(write_pair(place, plan, processes))
    return folders
