"""A finished NIfTI result in another format, slice by slice: NRRD, MetaImage, a DICOM series."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.formats.nifti import NiftiLayout, read_layout
from data.formats.nifti_slices import nifti_slices
from data.volumes.geometry import LPS_TO_RAS
from util.errors import UserError
from util.files import PARTIAL_ENDING, atomic_path
from util.progress import progress

GZIP_LEVEL = 1  # packing noisy CT harder takes long and gives little
DERIVED = "DERIVED\\SECONDARY\\AXIAL"  # image type of a DICOM series
# Also in the heads of NRRD and MetaImage, so that an export is told from what others wrote.
DESCRIPTION = "super-resolution, SR-CycleGAN; for research only"
HEAD_BYTES = 4096  # hold the description in every format


def export_name(result: str, kind: str) -> str:
    """File or folder beside `result` that holds it in another format."""
    stem = result.removesuffix(".gz").removesuffix(".nii")
    return f"{stem}_dicom" if kind == "dicom" else f"{stem}.{kind}"


def export_volume(result: Path, kind: str, source: Path, drawn: str = "") -> Path:
    """Write a result beside itself in another format; whole or not at all.

    Args:
        result: .nii or .nii.gz in whole HU that fit int16.
        kind: "nrrd", "mha" or "dicom".
        source: volume that it was made from; of a DICOM series the patient and the study are kept.
        drawn: words for the description on what of the result is drawn by chance, in ASCII, up to
            14 characters; "" for nothing.

    Returns:
        The file, or the folder of the series.

    Raises:
        UserError: the disk refuses, or the folder of the series holds other files.
        ValueError: unknown format.
    """
    layout = read_layout(result)
    target = result.with_name(export_name(result.name, kind))
    check_export_place(target, kind)
    description = f"{DESCRIPTION}; {drawn}" if drawn else DESCRIPTION
    if kind == "dicom":
        replace_series(
            target, lambda folder: _write_dicom(folder, result, layout, source, description)
        )
        return target
    headers = {"nrrd": nrrd_header, "mha": meta_header}
    if kind not in headers:
        raise ValueError(f"{kind} is not one of dicom, {', '.join(headers)}")
    with atomic_path(target) as partial, partial.open("wb") as stream:
        stream.write(headers[kind](layout, description).encode("ascii"))
        if kind == "nrrd":
            with gzip.GzipFile("", "wb", GZIP_LEVEL, stream, mtime=0) as packed:
                _append(packed, result, layout)
        else:
            _append(stream, result, layout)
    return target


def check_export_place(target: Path, kind: str) -> None:
    """Refuse what stands where an export would go and is none.

    Args:
        target: file, or folder of a series, see `export_name`.
        kind: as for `export_volume`.

    Raises:
        UserError: a folder where a file would go, the reverse, a link to a folder, or a folder
            with other files.
    """
    if kind == "dicom" and target.exists() and not _is_series(target):
        folder = target.is_dir() and not target.is_symlink()
        what = "holds other files than DICOM slices" if folder else "is a file or a link"
        raise UserError(f"{target} {what}, expected the folder of a series: move it away")
    if kind != "dicom" and target.is_dir():
        raise UserError(f"{target} is a folder, expected a file: move it away")


def remove_exports(result: Path, source: Path) -> None:
    """Remove the exports of an earlier result of this name.

    What `export_volume` did not write stays, and so does the volume that the result was made of:
    either may have the name of an export.
    """
    for kind in ("nrrd", "mha"):
        target = result.with_name(export_name(result.name, kind))
        if target.is_file() and _is_own(target) and not _is_same(target, source):
            target.unlink()
    series = result.with_name(export_name(result.name, "dicom"))
    if _is_same(series, source) or not _is_series(series):
        return
    if all(_is_own(path) for path in series.iterdir()):
        shutil.rmtree(series)


def _is_series(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(path.suffix == ".dcm" and path.is_file() for path in folder.iterdir())


def _is_own(path: Path) -> bool:
    with path.open("rb") as stream:
        return DESCRIPTION.encode("ascii") in stream.read(HEAD_BYTES)


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def nrrd_header(layout: NiftiLayout, description: str = DESCRIPTION) -> str:
    """Text before the voxels (https://teem.sourceforge.net/nrrd/format.html)."""
    lps = LPS_TO_RAS @ layout.affine
    slices, rows, columns = layout.shape
    directions = " ".join(_vector(lps[:3, axis]) for axis in range(3))
    lines = (
        "NRRD0004",
        f"# {description}",
        "type: int16",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {columns} {rows} {slices}",
        f"space directions: {directions}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
    )
    return "\n".join(lines) + "\n\n"


def meta_header(layout: NiftiLayout, description: str = DESCRIPTION) -> str:
    """Text before the voxels (https://itk.org/Wiki/MetaIO/Documentation)."""
    lps = LPS_TO_RAS @ layout.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = (lps[:3, :3] / spacing).T.ravel()
    slices, rows, columns = layout.shape
    lines = (
        "ObjectType = Image",
        f"Comment = {description}",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {_numbers(directions)}",
        f"Offset = {_numbers(lps[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_numbers(spacing)}",
        f"DimSize = {columns} {rows} {slices}",
        "ElementType = MET_SHORT",
        "ElementDataFile = LOCAL",
    )
    return "\n".join(lines) + "\n"


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.12g}" for value in values)


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(f"{value:.12g}" for value in values) + ")"


def _slices(result: Path, layout: NiftiLayout) -> Iterator[np.ndarray]:
    count = layout.shape[0]
    slices = nifti_slices(result, range(count))
    for values in progress(slices, f"{result.name}, another format", unit="slice", total=count):
        yield np.rint(values).astype("<i2")


def _append(stream: BinaryIO | gzip.GzipFile, result: Path, layout: NiftiLayout) -> None:
    for values in _slices(result, layout):
        stream.write(values.tobytes())


def _write_dicom(
    folder: Path, result: Path, layout: NiftiLayout, source: Path, description: str
) -> None:
    from data.writing.dicom_writer import write_series  # it loads pydicom

    lps = LPS_TO_RAS @ layout.affine
    slices = _slices(result, layout)
    write_series(folder, slices, lps, layout.shape[0], source, DERIVED, description)


def replace_series(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside `target`, then let it take the name; whole or not at all.

    Raises:
        UserError: see `check_export_place`, or the disk refuses.
    """
    check_export_place(target, "dicom")
    partial = target.with_name(target.name + PARTIAL_ENDING)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {target}: {error}; free space or give another folder"
            ) from error
        raise
