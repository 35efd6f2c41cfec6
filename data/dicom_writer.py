"""A derived CT series: one DICOM file a slice, with UIDs of its own, in the patient's place."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from data.dicom_headers import looks_like_dicom
from data.formats import case_name
from util.errors import UserError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"  # SOP class
DESCRIPTION = "super-resolution, SR-CycleGAN; for research only"
LONGEST_DESCRIPTION = 64  # characters of a value of type LO
# Patient and study, which a derived series shares with the one that it was made from.
SHARED = (
    "0008|0020",  # study date
    "0008|0030",  # study time
    "0008|0050",  # accession number
    "0008|0090",  # referring physician
    "0008|1030",  # study description
    "0010|0010",  # patient's name
    "0010|0020",  # patient's ID
    "0010|0030",  # birth date
    "0010|0040",  # sex
    "0010|1010",  # age
    "0018|5100",  # patient position
    "0020|000d",  # study instance UID
    "0020|0010",  # study ID
    "0020|0052",  # frame of reference UID: coordinates stay those of the scanner
)


def write_series(
    folder: Path, slices: Iterable[np.ndarray], affine: np.ndarray, count: int, source: Path
) -> None:
    """Write a series; holds one slice at a time.

    Args:
        folder: there and empty; gets 00001.dcm and so on.
        slices: int16 (rows, columns) in HU.
        affine: (4, 4), voxel (x, y, z) -> mm, LPS; its columns at right angles.
        count: of the slices.
        source: what the series was made from; a DICOM folder lends patient and study.

    Raises:
        UserError: a slice cannot be written.
    """
    common = shared_tags(source)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    across, down = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
    now = datetime.now()
    digits = max(5, len(str(count)))
    common |= {
        "0008|0008": "DERIVED\\SECONDARY\\AXIAL",
        "0008|0012": now.strftime("%Y%m%d"),
        "0008|0013": now.strftime("%H%M%S"),
        "0008|0016": CT_IMAGE,
        "0008|0021": now.strftime("%Y%m%d"),
        "0008|0031": now.strftime("%H%M%S"),
        "0008|0060": "CT",
        "0008|103e": DESCRIPTION[:LONGEST_DESCRIPTION],
        "0008|2111": DESCRIPTION,
        "0018|0050": _decimal(spacing[2]),
        "0018|0088": _decimal(spacing[2]),
        "0020|000e": new_uid(),
        "0020|0011": "1",
        "0020|0037": "\\".join(_decimal(value) for value in (*across, *down)),
        "0028|1050": "-600",  # lung window, as a viewer opens it
        "0028|1051": "1500",
        "0028|1052": "0",
        "0028|1053": "1",
    }
    for number, values in enumerate(slices, start=1):
        position = affine[:3] @ [0.0, 0.0, number - 1.0, 1.0]
        image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.int16))
        image.SetSpacing([float(spacing[0]), float(spacing[1])])
        tags = common | {
            "0008|0018": new_uid(),
            "0020|0013": str(number),
            "0020|0032": "\\".join(_decimal(value) for value in position),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        path = folder / f"{number:0{digits}d}.dcm"
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(path))
        try:
            writer.Execute(image)
        except RuntimeError as error:
            raise UserError(f"{path} cannot be written: {str(error).splitlines()[-1]}") from error


def shared_tags(source: Path) -> dict[str, str]:
    """Patient and study of a DICOM series; of another volume its case name and a new study."""
    if source.is_dir():
        first = next((path for path in sorted(source.iterdir()) if looks_like_dicom(path)), None)
        if first is not None:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(first))
            reader.ReadImageInformation()
            there = set(reader.GetMetaDataKeys())
            return {tag: reader.GetMetaData(tag) for tag in SHARED if tag in there}
    name = case_name(source)
    return {
        "0010|0010": name,
        "0010|0020": name,
        "0020|000d": new_uid(),
        "0020|0052": new_uid(),
    }


def new_uid() -> str:
    """A UID that nobody else has: a random UUID under the root of such (DICOM PS3.5, B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def _decimal(value: float) -> str:
    """A number of type DS: at most 16 characters."""
    for digits in range(12, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(f"{value} does not fit a DICOM number")
