"""One phantom patient seen by both scanners, with the truth: what no real data set has.

    clinical.nii          clinical CT, HU
    clinical_mask.nii.gz  lung on its grid
    micro.nii             micro-CT of the same field, voxels `scale` times as fine along all axes,
                          scanner units
    truth.nii             HU without blur, noise or rings, `scale` times as fine in plane
    thin.nii              the same, one micro-CT voxel thick: the middle of each clinical slice
    labels.nii.gz         what lies in the middle of each of truth's voxels
                          (data.truth_case.LABELS)
    phantom.json          all parameters, and whether the rest is complete

All of them come from one rendering. Super-resolution in plane leaves z as it is, so that the truth
of a clinical slice is the average of the tissue over the slice's thickness: fidelity is measured
against it. Texture of single alveoli is that of thin slices.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from data.phantom.anatomy.disease import HEALTHY, Disease
from data.phantom.anatomy.patient import VERSION, Anatomy
from data.phantom.render import (
    Point,
    Size,
    clinical_from,
    corner_of,
    ras_affine,
    refuse_size,
    voxel_averages,
    voxel_centres,
)
from data.phantom.scanners import ClinicalScanner, MicroScanner
from data.truth_case import LABELS
from data.writing.nifti_writer import write_volume
from util.disk.folder_lock import owned_folder
from util.errors import UserError, some_of
from util.files import write_json
from util.images.resampling import area_average

RECORD = "phantom.json"
FILES = ("clinical.nii", "clinical_mask.nii.gz", "truth.nii", "thin.nii", "labels.nii.gz")
MICRO = "micro.nii"
CUBE_TOLERANCE = 1e-6  # relative
DEFAULT_SIZE = (64, 64, 16)  # clinical voxels: 32 x 32 x 8 mm, a tissue block


@dataclass(frozen=True)
class PairPlan:
    """What to render."""

    seed: int  # the patient
    disease: Disease = HEALTHY  # of the patient
    scale: int = 8  # clinical pixel / micro voxel
    size: Size = DEFAULT_SIZE  # clinical voxels along (x, y, z)
    clinical: ClinicalScanner = field(default_factory=ClinicalScanner)  # the clinical scanner
    # the micro-CT; its voxel is set by the clinical scanner and the scale
    micro: MicroScanner = field(default_factory=MicroScanner)
    with_micro: bool = True  # whether its volume is wanted: the largest by far
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
    def per_slice(self) -> int:
        """Slices of the micro-CT in a clinical slice."""
        voxel = self.clinical.pixel / self.scale
        return max(1, round(self.clinical.slice_thickness / voxel))

    @property
    def micro_size(self) -> Size:
        """Voxels of the micro-CT along (x, y, z)."""
        x, y, z = self.size
        return x * self.scale, y * self.scale, z * self.per_slice

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all volumes."""
        return (*FILES, MICRO) if self.with_micro else FILES


def fitting_micro(
    clinical: ClinicalScanner, scale: int, micro: MicroScanner | None = None
) -> MicroScanner:
    """The micro-CT whose pixels are `scale` times as fine as the clinical ones. Its voxels are
    cubes, or as near to them as clinical slices of a whole number of voxels allow."""
    voxel = clinical.pixel / scale
    depth = clinical.slice_thickness / max(1, round(clinical.slice_thickness / voxel))
    cube = abs(depth - voxel) < CUBE_TOLERANCE * voxel
    fitting = micro or MicroScanner()
    return replace(fitting, voxel=voxel, psf_fwhm=0.96 * voxel, depth=None if cube else depth)


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
    if not is_there(folder, wanted):
        with owned_folder(folder, "give another folder", patient=True):
            if not is_there(folder, wanted):  # nobody else has made it meanwhile
                _make_pair(folder, plan, processes)
    return folder


def _make_pair(folder: Path, plan: PairPlan, processes: int) -> None:
    anatomy = Anatomy(plan.seed, plan.disease)
    centre = field_centre(anatomy, plan)
    facts = {"plan": plan.as_json(), "centre_mm": list(centre), "labels": LABELS}
    # First, so that what a stop leaves behind is known for ours.
    write_json(folder / RECORD, {**facts, "complete": False})
    _write_volumes(folder, anatomy, plan, centre, processes)
    write_json(folder / RECORD, {**facts, "complete": True})


def is_there(folder: Path, plan: dict[str, object]) -> bool:
    """Whether a folder holds all volumes of a plan (as JSON knows it).

    Raises:
        UserError: it holds another patient's, or files that are none of ours.
    """
    record = folder / RECORD
    if not record.exists():
        foreign = [name for name in (*FILES, MICRO) if (folder / name).exists()]
        if foreign:
            raise UserError(f"{folder} already holds {some_of(foreign)}: give another --out")
        return False
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        known, complete = told["plan"], told["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} cannot be read ({error}): give another --out") from error
    refuse_version(folder, known)
    if known != plan:
        raise UserError(
            f"{folder} holds the phantom of seed {known.get('seed')} with other parameters: give "
            "another --out, or remove it"
        )
    wanted = (*FILES, MICRO) if plan["with_micro"] else FILES
    return bool(complete) and all((folder / name).exists() for name in wanted)


def refuse_version(folder: Path, told: dict[str, object]) -> None:
    """Refuse what another version of the phantom made; `told` are its parameters.

    Raises:
        UserError: says which.
    """
    version = told.get("version")
    if version != VERSION:
        raise UserError(
            f"{folder} holds a phantom of version {version}, this is version {VERSION}, whose lung "
            "is another: remove that folder to make it anew, or give another one"
        )


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


def _write_volumes(
    folder: Path, anatomy: Anatomy, plan: PairPlan, centre: Point, processes: int
) -> None:
    """All volumes from one rendering of fine voxels."""
    scanner, clinical, scale, per_slice = (
        plan.micro_scanner,
        plan.clinical,
        plan.scale,
        plan.per_slice,
    )
    size, spacing = plan.micro_size, scanner.spacing
    # The kernel, the slice profile and the micro-CT's blur read what lies beyond the border.
    own = scanner.margin
    side = max(clinical.margin, -(-max(own[:2]) // scale)) * scale
    above = max(clinical.reach(per_slice), own[2])
    wide = (size[0] + 2 * side, size[1] + 2 * side, size[2] + 2 * above)
    corner = corner_of(plan.size, clinical.spacing, centre)
    wide_corner = corner - np.multiply((side, side, above), spacing)
    title = f"phantom {plan.seed}"
    values = voxel_averages(anatomy, wide_corner, spacing, wide, processes, title)

    reach = clinical.reach(per_slice)
    edge = side - clinical.margin * scale
    seen = values[
        above - reach : above + size[2] + reach, edge : wide[1] - edge, edge : wide[0] - edge
    ]
    coarse = np.stack([area_average(one, scale) for one in clinical.slices(seen, per_slice)])
    stored = clinical_from(clinical, coarse, plan.seed)
    affine = ras_affine(corner, clinical.spacing)
    write_volume(folder / "clinical.nii", stored, affine, overwrite=True)
    z, y, x = voxel_centres(corner, clinical.spacing, plan.size)
    lung = anatomy.depth(z, y, x) < 0
    write_volume(folder / "clinical_mask.nii.gz", lung, affine, overwrite=True, dtype=np.uint8)

    place = (slice(above, above + size[2]), *(slice(side, side + n) for n in (size[1], size[0])))
    fine = values[place].reshape(-1, per_slice, size[1], size[0])
    truth_spacing = (spacing[0], spacing[1], clinical.slice_thickness)
    affine = ras_affine(corner, truth_spacing)
    write_volume(folder / "truth.nii", np.rint(fine.mean(axis=1)), affine, overwrite=True)
    write_volume(folder / "thin.nii", np.rint(fine[:, per_slice // 2]), affine, overwrite=True)
    z, y, x = voxel_centres(corner, truth_spacing, (size[0], size[1], plan.size[2]))
    labels = np.empty((plan.size[2], size[1], size[0]), np.uint8)
    tubes = anatomy.tubes(corner, corner + np.multiply(size, spacing))
    for index in range(plan.size[2]):
        labels[index : index + 1] = anatomy.labels(tubes, z[index : index + 1], y, x)
    write_volume(folder / "labels.nii.gz", labels, affine, overwrite=True, dtype=np.uint8)
    if plan.with_micro:
        noisy = scanner.acquire(scanner.blur(values)[place], np.random.default_rng([plan.seed, 5]))
        micro_affine = ras_affine(corner, spacing)
        write_volume(folder / MICRO, noisy, micro_affine, overwrite=True, dtype=np.uint16)
