"""Headers of DICOM slices: which files of a folder are slices, and what each says of its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from data.volumes.names import file_start, looks_like_dicom
from util.errors import UserError

# ITK's and GDCM's warnings would land in a progress bar; what matters is raised as UserError.
sitk.ProcessObject.SetGlobalWarningDisplay(False)

# Storage classes that carry no slices: DICOMDIR, waveforms, presentation states, raw data and
# segmentations, structured reports, encapsulated documents, radiotherapy objects.
NO_SLICES = (
    "1.2.840.10008.1.3.10",
    *(f"1.2.840.10008.5.1.4.1.1.{branch}" for branch in ("9.", "11.", "66", "88.", "104.", "481.")),
)


@dataclass(frozen=True, eq=False)
class SliceHeader:
    """One DICOM file of a series."""

    path: Path  # the file
    # series_uid, description: SeriesInstanceUID and SeriesDescription ("" if not stated)
    series_uid: str
    description: str
    size: tuple[int, int, int]  # (columns, rows, frames)
    components: int  # values per pixel
    position: np.ndarray | None  # ImagePositionPatient in mm, LPS, or None
    # (2, 3) ImageOrientationPatient, the directions of growing column and growing row
    axes: np.ndarray
    spacing: tuple[float, float] | None  # PixelSpacing as (x, y) in mm, or None
    thickness: float | None  # SpacingBetweenSlices or SliceThickness in mm, or None


def read_slice_headers(folder: Path) -> list[SliceHeader]:
    """Headers of all DICOM slices directly inside a folder, in the order of their names.

    Files that are no DICOM, and DICOM objects without slices (DICOMDIR, reports, contours), are
    left out.

    Raises:
        UserError: a DICOM slice that cannot be read, for example because it is cut off.
    """
    headers = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            header = _read_header(path)
            if header is not None:
                headers.append(header)
    return headers


def read_pixels(path: Path) -> np.ndarray:
    """Pixels (rows, columns) of one DICOM slice with its rescale slope and intercept applied."""
    try:
        image = _reader(path).Execute()
    except RuntimeError as error:
        raise UserError(
            f"DICOM slice {path} cannot be decoded ({_last_line(error)}): export it again, "
            "uncompressed if need be"
        ) from error
    return sitk.GetArrayFromImage(image)[0]


def _read_header(path: Path) -> SliceHeader | None:
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if not looks_like_dicom(path) or _storage_class(path).startswith(NO_SLICES):
            return None
        raise UserError(
            f"DICOM slice {path} cannot be read ({_last_line(error)}): copy or export it again"
        ) from error
    columns, rows, *frames = reader.GetSize()
    spacing = _numbers(reader, path, "0028|0030", 2)
    position = _numbers(reader, path, "0020|0032", 3)
    axes = _numbers(reader, path, "0020|0037", 6) or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    thickness = _numbers(reader, path, "0018|0088", 1) or _numbers(reader, path, "0018|0050", 1)
    return SliceHeader(
        path=path,
        series_uid=_text(reader, "0020|000e"),
        description=_text(reader, "0008|103e"),
        size=(columns, rows, frames[0] if frames else 1),
        components=reader.GetNumberOfComponents(),
        position=None if position is None else np.array(position),
        axes=np.reshape(axes, (2, 3)),
        # PixelSpacing states the distance of rows (y) first.
        spacing=None if spacing is None else (spacing[1], spacing[0]),
        thickness=None if thickness is None else thickness[0],
    )


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    if not reader.HasMetaDataKey(tag):
        return ""
    text: str = reader.GetMetaData(tag)
    return text.encode("utf-8", "replace").decode().strip(" \0")


def _numbers(
    reader: sitk.ImageFileReader, path: Path, tag: str, count: int
) -> tuple[float, ...] | None:
    """The numbers of a decimal string, or None where the tag is missing or empty."""
    text = _text(reader, tag)
    if not text:
        return None
    try:
        numbers = tuple(float(word) for word in text.split("\\"))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UserError(
            f'DICOM slice {path} has "{text}" in tag ({tag.replace("|", ",")}), expected {count} '
            "numbers: export the series again"
        )
    return numbers


def _storage_class(path: Path) -> str:
    """MediaStorageSOPClassUID from the file's meta header, or ""."""
    start = file_start(path)
    tag = start.find(b"\x02\x00\x02\x00UI")
    if tag < 0:
        return ""
    length = int.from_bytes(start[tag + 6 : tag + 8], "little")
    return start[tag + 8 : tag + 8 + length].decode("ascii", "replace").strip("\0 ")


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]
