"""A derived CT series: one DICOM file a slice, with UIDs of its own, in the patient's place."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from data.formats.dicom_headers import read_slice_headers
from data.volumes.names import case_name
from util.errors import UserError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"  # SOP class
LONGEST_TEXT = 64  # characters of a value of type LO or of a part of a name
# What stands in (0008,0005) -> Python's name; PS3.3, C.12.1.1.2. "ISO 2022 IR" is looked up as
# "ISO_IR": of several sets the last counts, the one beside ASCII.
CHARACTER_SETS = {
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 87": "iso2022_jp",
    "ISO_IR 149": "euc_kr",
    "ISO_IR 58": "gb2312",
    "ISO_IR 166": "tis-620",
    "ISO_IR 192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
# Changes of the character set (ISO 2022) and control characters have no place in UTF-8 text.
CONTROLS = re.compile(r"\x1b[ -/]*[0-~]?|[\x00-\x1f\x7f]")
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
    folder: Path,
    slices: Iterable[np.ndarray],
    affine: np.ndarray,
    count: int,
    source: Path,
    image_type: str,
    description: str,
) -> None:
    """Write a series; holds one slice at a time.

    Args:
        folder: there and empty; gets 00001.dcm and so on.
        slices: int16 (rows, columns) in HU.
        affine: (4, 4), voxel (x, y, z) -> mm, LPS; its columns at right angles.
        count: of the slices.
        source: what the series was made from; a DICOM folder lends patient and study.
        image_type: of the slices, such as that of `data.writing.exports`.
        description: of the series, in ASCII, up to 64 characters.

    Raises:
        UserError: a slice cannot be written.
    """
    common = shared_tags(source)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    across, down = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
    now = datetime.now()
    digits = max(5, len(str(count)))
    common |= {
        "0008|0005": "ISO_IR 192",  # all text is UTF-8
        "0008|0008": image_type,
        "0008|0012": now.strftime("%Y%m%d"),
        "0008|0013": now.strftime("%H%M%S"),
        "0008|0016": CT_IMAGE,
        "0008|0021": now.strftime("%Y%m%d"),
        "0008|0031": now.strftime("%H%M%S"),
        "0008|0060": "CT",
        "0008|103e": description,
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
    """Patient and study of a DICOM series; what it does not state, and of another volume all, is
    made from the case's name and new UIDs."""
    name = plain_text(case_name(source).replace("\\", " "))
    tags = {
        "0010|0010": name,
        "0010|0020": name,
        "0020|000d": new_uid(),
        "0020|0052": new_uid(),
    }
    headers = read_slice_headers(source) if source.is_dir() else []
    if headers:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(headers[0].path))
        reader.ReadImageInformation()
        stated = {tag: reader.GetMetaData(tag) for tag in reader.GetMetaDataKeys()}
        character_set = stated.get("0008|0005", "").split("\\")[-1].strip()
        character_set = character_set.replace("ISO 2022 IR", "ISO_IR")
        for tag in SHARED:
            text = plain_text(stated.get(tag, ""), CHARACTER_SETS.get(character_set, "utf-8"))
            if text:
                tags[tag] = text
    return tags


def plain_text(text: str, character_set: str = "utf-8") -> str:
    """Text as a DICOM value in UTF-8: SimpleITK hands out bytes that are not UTF-8 as surrogates.

    Args:
        text: as read, or a file's name.
        character_set: Python's name of the one that the bytes are in; what does not fit becomes
            U+FFFD.
    """
    raw = text.encode("utf-8", "surrogateescape")
    return CONTROLS.sub("", raw.decode(character_set, "replace")).strip()[:LONGEST_TEXT]


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
