"""One phantom patient seen by both scanners, with the truth: what no real data set has.

    clinical.nii          clinical CT, HU
    clinical_mask.nii.gz  lung on its grid
    micro.nii             micro-CT of the same field, `scale` times as fine in plane, scanner units
    truth.nii             HU on the micro-CT's grid, without blur, noise or rings
    labels.nii.gz         what each of its voxels lies in (data.phantom.anatomy.patient.LABELS)
    phantom.json          all parameters, and whether the rest is complete

Slices are the clinical ones in all of them: super-resolution in plane leaves z as it is, so the
truth of a slice is the average of the tissue over the slice's thickness.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from data.phantom.anatomy.disease import HEALTHY, Disease
from data.phantom.anatomy.patient import LABELS, VERSION, Anatomy
from data.phantom.render import (
    Point,
    Size,
    corner_of,
    ras_affine,
    refuse_size,
    scan,
    voxel_averages,
    voxel_centres,
)
from data.phantom.scanners import ClinicalScanner, MicroScanner
from data.writing.nifti_writer import write_volume
from util.errors import UserError
from util.files import write_json

RECORD = "phantom.json"
FILES = ("clinical.nii", "clinical_mask.nii.gz", "micro.nii", "truth.nii", "labels.nii.gz")
DEFAULT_SIZE = (64, 64, 16)  # clinical voxels: 32 x 32 x 8 mm, a tissue block


@dataclass(frozen=True)
class PairPlan:
    """What to render."""

    seed: int  # the patient
    disease: Disease = HEALTHY  # of the patient
    scale: int = 8  # clinical pixel / micro voxel
    size: Size = DEFAULT_SIZE  # clinical voxels along (x, y, z)
    clinical: ClinicalScanner = field(default_factory=ClinicalScanner)  # the clinical scanner
    # the micro-CT; its voxel and slices are set by the clinical scanner and the scale
    micro: MicroScanner = field(default_factory=MicroScanner)
    version: int = VERSION  # of the phantom, see `data.phantom.anatomy.patient.VERSION`

    @property
    def micro_scanner(self) -> MicroScanner:
        """The micro-CT on the grid of the truth."""
        return fitting_micro(self.clinical, self.scale, self.micro)

    def as_json(self) -> dict[str, object]:
        """All parameters, as JSON gives them back."""
        words: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return words

    @property
    def micro_size(self) -> Size:
        """Voxels of the truth along (x, y, z)."""
        return self.size[0] * self.scale, self.size[1] * self.scale, self.size[2]


def fitting_micro(
    clinical: ClinicalScanner, scale: int, micro: MicroScanner | None = None
) -> MicroScanner:
    """The micro-CT whose pixels are `scale` times as fine as the clinical ones, and whose slices
    are averages over the clinical slice thickness."""
    voxel = clinical.pixel / scale
    return replace(
        micro or MicroScanner(),
        voxel=voxel,
        psf_fwhm=0.96 * voxel,
        slice_thickness=clinical.slice_thickness,
    )


def write_pair(folder: Path, plan: PairPlan, processes: int = 1) -> Path:
    """Make `folder` hold the volumes of `plan`; a complete one is used as it is.

    Args:
        folder: made where it is missing.
        plan: what to render.
        processes: parts rendered at once.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds another patient or foreign files, or the field does not fit in
            the lung.
    """
    wanted = plan.as_json()
    if is_there(folder, wanted):
        return folder
    anatomy = Anatomy(plan.seed, plan.disease)
    centre = field_centre(anatomy, plan)
    facts = {"plan": wanted, "centre_mm": list(centre), "labels": LABELS}
    # First, so that what a stop leaves behind is known for ours.
    write_json(folder / RECORD, {**facts, "complete": False})
    title = f"phantom {plan.seed}"
    clinical = scan(
        anatomy, "clinical", plan.size, plan.clinical, centre, processes, f"{title}, clinical CT"
    )
    write_volume(folder / FILES[0], clinical.array, clinical.affine, overwrite=True)
    corner = corner_of(plan.size, plan.clinical.spacing, centre)
    z, y, x = voxel_centres(corner, plan.clinical.spacing, plan.size)
    lung = anatomy.depth(z, y, x) < 0
    write_volume(folder / FILES[1], lung, clinical.affine, overwrite=True, dtype=np.uint8)
    _write_fine(folder, anatomy, plan, corner, processes, f"{title}, micro-CT")
    write_json(folder / RECORD, {**facts, "complete": True})
    return folder


def is_there(folder: Path, plan: dict[str, object]) -> bool:
    """Whether a folder holds all volumes of a plan (as JSON knows it).

    Raises:
        UserError: it holds another patient's, or files that are none of ours.
    """
    record = folder / RECORD
    if not record.exists():
        foreign = [name for name in FILES if (folder / name).exists()]
        if foreign:
            raise UserError(f"{folder} already holds {', '.join(foreign)}: give another --out")
        return False
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        known, complete = told["plan"], told["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} cannot be read ({error}): give another --out") from error
    if known != plan:
        raise UserError(
            f"{folder} holds the phantom of seed {known.get('seed')} with other parameters: give "
            "another --out, or remove it"
        )
    return bool(complete) and all((folder / name).exists() for name in FILES)


def field_centre(anatomy: Anatomy, plan: PairPlan) -> Point:
    """Middle (x, y, z) in mm of the field: the nodule, or a place in lung around an airway.

    Raises:
        UserError: no place in the lung holds it.
    """
    refuse_size(plan.micro_size)
    if anatomy.nodule is not None:
        middle = anatomy.nodule.centre
    else:
        middle = anatomy.micro_centre(np.multiply(plan.size, plan.clinical.spacing))
    return float(middle[0]), float(middle[1]), float(middle[2])


def _write_fine(
    folder: Path,
    anatomy: Anatomy,
    plan: PairPlan,
    corner: np.ndarray,
    processes: int,
    title: str,
) -> None:
    """Micro-CT and truth from one rendering, and the labels."""
    scanner, size = plan.micro_scanner, plan.micro_size
    margin = scanner.margin
    wide = (size[0] + 2 * margin[0], size[1] + 2 * margin[1], size[2] + 2 * margin[2])
    wide_corner = corner - np.multiply(margin, scanner.spacing)
    values = voxel_averages(anatomy, wide_corner, scanner.spacing, wide, processes, title)
    place = tuple(slice(m, m + n) for m, n in zip(margin[::-1], size[::-1], strict=True))
    affine = ras_affine(corner, scanner.spacing)
    write_volume(folder / "truth.nii", np.rint(values[place]), affine, overwrite=True)
    stored = scanner.acquire(scanner.blur(values)[place], np.random.default_rng([plan.seed, 5]))
    write_volume(folder / "micro.nii", stored, affine, overwrite=True, dtype=np.uint16)
    z, y, x = voxel_centres(corner, scanner.spacing, size)
    labels = np.empty(size[::-1], np.uint8)
    high = corner + np.multiply(size, scanner.spacing)
    tubes = anatomy.tubes(corner, high)
    for index in range(size[2]):
        labels[index : index + 1] = anatomy.labels(tubes, z[index : index + 1], y, x)
    write_volume(folder / "labels.nii.gz", labels, affine, overwrite=True, dtype=np.uint8)
