"""A derived CT series: one DICOM file a slice, with UIDs of its own, in the patient's place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from data.formats.dicom.headers import SliceHeader
from data.formats.dicom.slice_files import slices_of
from data.volumes.names import case_name
from util.errors import UserError

LONGEST_TEXT = 64  # characters of a value of type LO or of a part of a name
# Control characters, and changes of the character set (ISO 2022), have no place in UTF-8 text.
CONTROLS = re.compile(r"\x1b[ -/]*[0-~]?|[\x00-\x1f\x7f]")
# Patient and study, which a derived series shares with the one that it was made from; of the
# frame of reference too, since coordinates stay those of the scanner.
SHARED = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientPosition",
    "StudyInstanceUID",
    "StudyID",
    "FrameOfReferenceUID",
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
    common = series_header(source, affine, image_type, description)
    digits = max(5, len(str(count)))
    for number, values in enumerate(slices, start=1):
        header = Dataset(common)
        header.SOPInstanceUID = new_uid()
        header.InstanceNumber = number
        header.ImagePositionPatient = _decimals(affine[:3] @ [0.0, 0.0, number - 1.0, 1.0])
        header.Rows, header.Columns = values.shape
        header.PixelData = np.ascontiguousarray(values, dtype="<i2").tobytes()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{number:0{digits}d}.dcm"
        try:
            header.save_as(path, enforce_file_format=True)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


HIGHEST_SERIES = 10_000_000  # of a number that may have two digits more


def series_header(source: Path, affine: np.ndarray, image_type: str, description: str) -> Dataset:
    """What all slices of a series have in common; arguments as for `write_series`."""
    source_slices = slices_of(source)
    header = shared_values(source, source_slices)
    now = datetime.now()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    across, down = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
    header.SOPClassUID = CTImageStorage
    header.Modality = "CT"
    header.ImageType = image_type.split("\\")
    header.SeriesDescription = description
    header.SeriesInstanceUID = new_uid()
    # Beside the study's own: those of scanners count from 1 on.
    of_source = source_slices[0].text("SeriesNumber") if source_slices else ""
    is_number = of_source.isdecimal() and 0 < int(of_source) < HIGHEST_SERIES
    header.SeriesNumber = 100 * int(of_source) if is_number else 1
    header.DerivationDescription = description
    for keyword in ("Manufacturer", "KVP", "AcquisitionNumber", "PositionReferenceIndicator"):
        setattr(header, keyword, None)  # CT images have to state them, if need be as unknown
    header.SeriesDate = header.InstanceCreationDate = now.strftime("%Y%m%d")
    header.SeriesTime = header.InstanceCreationTime = now.strftime("%H%M%S")
    (header.SliceThickness,) = (header.SpacingBetweenSlices,) = _decimals(spacing[2:])
    header.PixelSpacing = _decimals(spacing[1::-1])  # rows' distance (y) comes first
    header.ImageOrientationPatient = _decimals([*across, *down])
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = 1  # signed
    header.RescaleSlope, header.RescaleIntercept = 1, 0
    header.WindowCenter, header.WindowWidth = -600, 1500  # lung window, as a viewer opens it
    return header


def shared_values(source: Path, slices: Sequence[SliceHeader]) -> Dataset:
    """Patient and study of a DICOM series; what it does not state, and of another volume all, is
    made from the case's name and new UIDs."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"  # all text is UTF-8
    header.PatientName = header.PatientID = plain_text(case_name(source).replace("\\", " "))
    header.StudyInstanceUID, header.FrameOfReferenceUID = new_uid(), new_uid()
    for keyword in SHARED if slices else ():
        if text := plain_text(slices[0].text(keyword)):
            kind = dictionary_VR(keyword)
            # As the scanner wrote it, whether or not that is what the standard wants.
            header[keyword] = DataElement(keyword, kind, text, validation_mode=config.IGNORE)
    return header


def plain_text(text: str) -> str:
    """Text without what has no place in a DICOM value in UTF-8; a file's name may hold bytes that
    are none, which become U+FFFD."""
    raw = text.encode("utf-8", "surrogateescape")
    return CONTROLS.sub("", raw.decode("utf-8", "replace")).strip()[:LONGEST_TEXT]


def new_uid() -> str:
    """A UID that nobody else has: a random UUID under the root of such (DICOM PS3.5, B.2)."""
    return generate_uid(prefix=None)


def _decimals(values: Iterable[float]) -> list[str]:
    """Numbers of type DS: at most 16 characters each."""
    return [_decimal(float(value)) for value in values]


def _decimal(value: float) -> str:
    for digits in range(12, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(f"{value} does not fit a DICOM number")
