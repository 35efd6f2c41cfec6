"""Phantom patients with their truth, read back; and the fixed ones of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.formats.readers import read_volume
from data.phantom.anatomy.disease import DISEASES
from data.phantom.anatomy.patient import LABELS
from data.phantom.pair import FILES, RECORD, PairPlan, is_there, refuse_version, write_pair
from data.volumes.volume import Volume
from util.errors import UserError

FIRST_SEED = 301  # of the benchmark; train.py's phantom has seeds up to 31 + 100 * seed
DISEASES_IN_TURN = tuple(DISEASES)


@dataclass(frozen=True)
class PhantomCase:
    """One patient seen by the clinical scanner, and the truth."""

    name: str  # of its folder
    disease: str  # as DISEASES names it, or "other"
    clinical: np.ndarray  # HU, float32 (slices, rows, columns)
    mask: np.ndarray  # lung on that grid, bool
    # truth, thin: HU on a grid `scale` times as fine in plane, float32: the average over a slice's
    # thickness, and one fine voxel in the middle of it
    truth: np.ndarray
    thin: np.ndarray
    labels: np.ndarray  # uint8 on the truth's grid, see `data.phantom.anatomy.patient.LABELS`
    affine: np.ndarray  # (4, 4) of the truth, voxel (x, y, z) -> mm
    scale: int  # clinical pixel / pixel of the truth
    seed: int  # of the patient

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the truth along (x, y, z) in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Masks on the truth's grid by name; those that the patient has none of are left out."""
        labels = self.labels
        tubes = [LABELS[name] for name in ("vessel", "airway", "lumen")]
        masks = {
            "all": np.ones(labels.shape, bool),
            "parenchyma": labels == LABELS["parenchyma"],
            "septa": labels == LABELS["septum"],
            "vessels": np.isin(labels, tubes),
            "nodule": labels == LABELS["nodule"],
        }
        return {name: mask for name, mask in masks.items() if mask.any()}


def read_case(folder: Path, cache_dir: Path | None = None) -> PhantomCase:
    """Read what `python -m data.phantom` wrote.

    Raises:
        UserError: the folder holds no phantom patient.
    """
    record = folder / RECORD
    if not record.is_file():
        raise UserError(
            f"{folder} holds no phantom patient ({RECORD} is missing): make one with "
            f"python -m data.phantom --out {folder} --seed N"
        )
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        plan, complete = dict(told["plan"]), told["complete"]
        scale, seed, disease = int(plan["scale"]), int(plan["seed"]), plan["disease"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} cannot be read ({error}): make the patient anew") from error
    refuse_version(folder, plan)
    if not complete:
        raise UserError(f"{folder} is not complete: run python -m data.phantom again")
    clinical, mask, truth, thin, labels = (read_volume(folder / name, cache_dir) for name in FILES)
    names = [name for name, one in DISEASES.items() if disease == json.loads(json.dumps(vars(one)))]
    return PhantomCase(
        folder.name,
        names[0] if names else "other",
        voxels(clinical),
        voxels(mask) != 0,
        voxels(truth),
        voxels(thin),
        voxels(labels).astype(np.uint8),
        truth.affine,
        scale,
        seed,
    )


def voxels(volume: Volume) -> np.ndarray:
    """A whole volume in memory, float32 (slices, rows, columns)."""
    slices = [volume.read_slice(index) for index in range(volume.num_slices)]
    return np.stack(slices).astype(np.float32)


def benchmark_patients(
    folder: Path, scale: int, count: int, processes: int, say: Callable[[str], None]
) -> list[Path]:
    """The fixed unseen patients, made where they are missing: folders by seed.

    Kinds take turns: healthy, emphysema, fibrosis, solid and ground-glass nodule.

    Args:
        folder: where they lie.
        scale: of the truth.
        count: how many, from 1.
        processes: at once for one patient.
        say: takes a line about each that has to be made.
    """
    folders = []
    for number in range(count):
        seed, disease = FIRST_SEED + number, DISEASES_IN_TURN[number % len(DISEASES_IN_TURN)]
        place = folder / f"seed{seed}_{disease}"
        plan = PairPlan(seed, DISEASES[disease], scale, with_micro=False)
        if not is_there(place, plan.as_json()):
            say(f"phantom: making patient {number + 1} of {count}, {disease} (once)")
        folders.append(write_pair(place, plan, processes))
    return folders
