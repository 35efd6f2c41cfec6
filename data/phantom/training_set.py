"""Write the phantom's volumes to a folder: once, safely, and again only what is missing."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from data.phantom.anatomy.disease import DISEASES
from data.phantom.anatomy.patient import VERSION
from data.phantom.pair import RECORD, fitting_micro, refuse_version
from data.phantom.render import Size, render_clinical, render_lung_mask, render_micro
from data.phantom.scanners import ClinicalScanner, MicroScanner
from data.volumes.volume import Volume
from util.disk.folder_lock import owned_folder
from util.errors import UserError
from util.files import atomic_path, write_json

SCALES = (2, 4, 8, 16)
FIELD_OF_VIEW = 16.0  # side of a micro-CT specimen, mm: a small tissue block
COMPLETE = "complete.json"
WORTH_A_PROCESS = 1_000_000  # voxels: some seconds of work, more than starting a process takes
NIFTI_OFFSET = 352  # where the voxels begin in a single-file NIfTI-1

Progress = Callable[[int, int, str], None]
"""Called with the number of finished volumes, of all volumes, and the name of the last one."""


@dataclass(frozen=True)
class PhantomPaths:
    """Where the phantom lies: `clinical` and `micro` to train on; `clinical_test` and
    `micro_test` hold patients that no training volume shows. Each is a folder of volumes; lung
    masks (`*_mask.nii.gz`) lie beside the clinical ones."""

    folder: Path
    clinical: Path
    micro: Path
    clinical_test: Path
    micro_test: Path


@dataclass(frozen=True)
class PhantomPlan:
    """What to write."""

    scale: int  # clinical pixel / micro voxel, one of SCALES
    # clinical_size, micro_size: voxels along (x, y, z)
    clinical_size: Size
    micro_size: Size
    seed: int = 0  # shifts all patients by 100 * seed, for another set of patients

    @property
    def scanners(self) -> tuple[ClinicalScanner, MicroScanner]:
        """The clinical scanner, and the micro-CT whose voxel fits the scale."""
        clinical = ClinicalScanner()
        return clinical, fitting_micro(clinical, self.scale)

    def jobs(self, folder: Path) -> list[_Job]:
        """The six volumes."""
        clinical, micro = self.scanners
        x, y, z = self.clinical_size
        held_back = self.micro_size[:2]
        rows: tuple[tuple[str, ClinicalScanner | MicroScanner, int, str, Size], ...] = (
            ("clinical", clinical, 1, "solid_nodule", (x, y, z)),
            ("clinical", clinical, 2, "emphysema", (x, y, z)),
            ("clinical_test", clinical, 21, "solid_nodule", (x, y, min(3, z))),
            ("micro", micro, 11, "healthy", self.micro_size),
            ("micro", micro, 12, "emphysema", self.micro_size),
            ("micro_test", micro, 31, "healthy", (*held_back, -(-self.micro_size[2] // 4))),
        )
        jobs = []
        for subfolder, scanner, number, disease, size in rows:
            seed = 100 * self.seed + number
            kind = "clinical" if isinstance(scanner, ClinicalScanner) else "micro"
            path = folder / subfolder / f"phantom_{kind}_seed{seed}.nii"
            jobs.append(_Job(path, seed, size, scanner, disease))
        return jobs

    def parameters(self) -> dict[str, object]:
        """All that decides the voxels, as JSON knows it."""
        clinical, micro = self.scanners
        return {
            "version": VERSION,
            "scale": self.scale,
            "seed": self.seed,
            "clinical_size": list(self.clinical_size),
            "micro_size": list(self.micro_size),
            "clinical_scanner": asdict(clinical),
            "micro_scanner": asdict(micro),
        }


def default_plan(scale: int, seed: int = 0) -> PhantomPlan:
    """Sizes for training: 112 x 96 x 1.5 mm of chest, cubes of 16 mm of specimens.

    Raises:
        UserError: the scale is not one of SCALES, or the seed is negative.
    """
    if scale not in SCALES:
        raise UserError(f"phantom scale {scale}: expected one of 2, 4, 8, 16")
    if seed < 0:
        raise UserError(f"phantom seed {seed}: expected 0 or more")
    side = round(FIELD_OF_VIEW * scale / ClinicalScanner().pixel)
    return PhantomPlan(scale, (224, 192, 3), (side, side, side), seed)


def write_phantom(
    folder: Path, plan: PhantomPlan, progress: Progress | None = None, processes: int | None = None
) -> PhantomPaths:
    """Make `folder` hold the phantom of `plan`.

    A complete folder with the same parameters is used as it is. What an interrupted run left is
    completed: each file is whole or absent, and says in its header what it was made from.

    Args:
        folder: made where it is missing.
        plan: what to write.
        progress: told after each volume.
        processes: parts of a volume rendered at once, each in its own process (about 200 MB); by
            default two where there are two cores and much to do. 1 renders in this process.

    Raises:
        UserError: the folder holds another phantom or foreign files, or cannot be written.
    """
    folder = Path(folder)
    paths = PhantomPaths(
        folder, *(folder / name for name in ("clinical", "micro", "clinical_test", "micro_test"))
    )
    if not _is_complete(folder, plan):  # else nobody waits, and a folder may be read-only
        with owned_folder(folder, "give another folder", patient=True):
            _complete(folder, plan, progress, processes)
    return paths


def _complete(
    folder: Path, plan: PhantomPlan, progress: Progress | None, processes: int | None
) -> None:
    """Write what is missing, unless another process has done so meanwhile."""
    jobs = plan.jobs(folder)
    if _is_complete(folder, plan):
        return
    missing = [job for job in jobs if not job.is_done()]
    large = sum(int(np.prod(job.size)) for job in missing) > WORTH_A_PROCESS
    count = processes or (min(2, os.cpu_count() or 1) if large else 1)
    done = len(jobs) - len(missing)
    for job in missing:
        name = job.write(count)
        done += 1
        if progress:
            progress(done, len(jobs), name)
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for job in jobs
        for path in job.files
    }
    write_json(folder / COMPLETE, {"parameters": plan.parameters(), "files": sizes})


def phantom_version(path: Path) -> int | None:
    """Version of the phantom that made a volume; None where it is no phantom's.

    The records of a training set and of a patient say so.
    """
    folder = path.parent
    for record, part in ((folder.parent / COMPLETE, "parameters"), (folder / RECORD, "plan")):
        try:
            return int(json.loads(record.read_text(encoding="utf-8"))[part]["version"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not there, or not of the phantom
    return None


def _is_complete(folder: Path, plan: PhantomPlan) -> bool:
    record = folder / COMPLETE
    if not record.exists():
        return False
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        parameters, files = told["parameters"], dict(told["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # torn by hand: check the volumes one by one
    refuse_version(folder, parameters)
    if parameters != plan.parameters():
        raise UserError(
            f"{folder} holds a phantom made with other parameters (scale "
            f"{parameters.get('scale')}, seed {parameters.get('seed')}; asked: scale {plan.scale}, "
            f"seed {plan.seed}): give another folder or remove this one"
        )
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in files.items()
    )


@dataclass(frozen=True)
class _Job:
    """One volume to write, with its lung mask where it is clinical."""

    path: Path
    seed: int
    size: Size
    scanner: ClinicalScanner | MicroScanner
    disease: str

    @property
    def files(self) -> list[Path]:
        mask = self.path.with_name(self.path.stem + "_mask.nii.gz")
        return [self.path, mask] if isinstance(self.scanner, ClinicalScanner) else [self.path]

    @property
    def label(self) -> str:
        """Goes into the NIfTI header's description (79 characters): what made the voxels."""
        words = [VERSION, self.seed, list(self.size), asdict(self.scanner), self.disease]
        digest = blake2b(json.dumps(words).encode(), digest_size=16).hexdigest()
        return f"digital lung phantom {digest}"

    def is_done(self) -> bool:
        """Whether all files are there and made from the same parameters.

        Raises:
            UserError: a file of that name is no phantom's: it will not be overwritten.
        """
        done = True
        for path in self.files:
            if not path.exists():
                done = False
                continue
            try:
                header = nib.Nifti1Image.from_filename(path).header
            except (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError) as error:
                raise UserError(
                    f"{path} is not a NIfTI file ({error}): remove it, or give another folder"
                ) from error
            told = header["descrip"].item().decode("ascii", "replace")
            if not told.startswith("digital lung phantom"):
                raise UserError(f"{path} is not a phantom's file: give another folder")
            whole = NIFTI_OFFSET + int(np.prod(self.size)) * header.get_data_dtype().itemsize
            done &= told == self.label and (path.suffix == ".gz" or path.stat().st_size == whole)
        return done

    def write(self, processes: int) -> str:
        """Render and write; the volume's file name."""
        disease, title = DISEASES[self.disease], f"phantom: {self.path.stem}"
        if isinstance(self.scanner, MicroScanner):
            volume = render_micro(
                self.seed, self.size, self.scanner, None, disease, processes, title, specimen=True
            )
            _write_nifti(self.path, volume, self.label)
        else:
            mask = render_lung_mask(self.seed, self.size, self.scanner)
            _write_nifti(self.files[1], mask, self.label)
            volume = render_clinical(
                self.seed, self.size, self.scanner, None, disease, processes, title
            )
            _write_nifti(self.path, volume, self.label)
        return self.path.name


def _write_nifti(path: Path, volume: Volume, label: str) -> None:
    """Voxels as they are behind a plain header: uncompressed files can be memory-mapped."""
    header = nib.Nifti1Header()
    header.set_data_dtype(volume.array.dtype)
    header.set_data_shape(volume.size)
    header.set_zooms(volume.spacing)
    header.set_xyzt_units("mm")
    header.set_sform(volume.affine, code=1)
    header.set_qform(volume.affine, code=1)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = NIFTI_OFFSET
    header["descrip"] = label.encode()
    content = (
        header.binaryblock
        + bytes(4)
        + volume.array.astype(volume.array.dtype.newbyteorder("<")).tobytes()
    )
    if path.suffix == ".gz":
        content = gzip.compress(content, 6, mtime=0)
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def generate_phantom(
    folder: Path,
    scale: int,
    progress: Progress | None = None,
    seed: int = 0,
    processes: int | None = None,
) -> PhantomPaths:
    """Make `folder` hold training and held-back phantom volumes for a magnification of `scale`.

    Writes, on first use only (some 80 MB at 8x), `clinical/` (two patients, with lung masks),
    `micro/` (two other patients), `clinical_test/` and `micro_test/` (one further patient
    each), as uncompressed NIfTI. May be stopped at any time and called again.

    Args:
        folder: made where it is missing.
        scale: 2, 4, 8 or 16.
        progress: called with (finished volumes, all volumes, file name) after each volume.
        seed: another number, other patients.
        processes: see `write_phantom`.

    Raises:
        UserError: unknown scale, or the folder holds something else.
    """
    return write_phantom(Path(folder), default_plan(scale, seed), progress, processes)


def report_phantom(say: Callable[[str], None]) -> Callable[[int, int, str], None]:
    """Progress of `generate_phantom` as lines for `say`."""
    return lambda done, count, name: say(f"phantom: made {name} ({done} of {count})")
