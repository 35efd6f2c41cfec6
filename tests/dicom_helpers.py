"""DICOM slices as scanners write them, made by pydicom, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

PIXEL, DISTANCE = (0.8, 0.7), 1.5  # mm: rows' and columns' distance, slices' distance
CORNER = (-20.0, -30.0, -100.0)  # of the first slice, LPS
Edit = Callable[[Dataset, int], None]


def chest(slices: int = 4, rows: int = 24, columns: int = 20, seed: int = 0) -> np.ndarray:
    """HU (slices, rows, columns), int16: soft tissue around air, different in each slice."""
    generator = np.random.default_rng(seed)
    values = generator.normal(40, 12, (slices, rows, columns))
    values[:, rows // 4 : rows // 2, columns // 5 : columns // 2] -= 890
    values += 3 * np.arange(slices)[:, None, None]
    return np.round(values).astype(np.int16)


def ct_slice(values: np.ndarray, index: int = 0, series: str = "1.2.7") -> Dataset:
    """A CT slice of HU (rows, columns), stored with an intercept of -1024."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
    header.Modality, header.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.PatientName, header.PatientID, header.StudyInstanceUID = "A^B", "7", "1.2.9"
    header.SeriesInstanceUID, header.SeriesDescription = series, "LUNG 1.0"
    header.InstanceNumber, header.AcquisitionNumber = index + 1, 1
    header.PixelSpacing, header.SliceThickness = list(PIXEL), DISTANCE
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [*CORNER[:2], CORNER[2] + DISTANCE * index]
    describe_pixels(header, values)
    header.RescaleSlope, header.RescaleIntercept = 1, -1024
    return header


def describe_pixels(header: Dataset, values: np.ndarray) -> None:
    """Store HU (rows, columns) or (frames, rows, columns) as signed 16 bits, 1024 higher."""
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = values.shape[-2:]
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.PixelData = (values + 1024).astype("<i2").tobytes()


def write_ct(
    folder: Path, values: np.ndarray, edit: Edit | None = None, name: str = "IM{:04d}"
) -> list[Path]:
    """Write a series of HU (slices, rows, columns), a file a slice; `edit` changes each before."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, section in enumerate(values):
        header = ct_slice(section, index)
        if edit is not None:
            edit(header, index)
        paths.append(folder / name.format(index))
        header.save_as(paths[-1], enforce_file_format=True)
    return paths


def item(**values: object) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def enhanced_ct(values: np.ndarray, first: int = 0) -> Dataset:
    """An Enhanced CT object of HU (frames, rows, columns), whose first frame is slice `first`."""
    header = ct_slice(values[0], first)
    header.SOPClassUID = EnhancedCTImageStorage
    for keyword in (
        "PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
        "RescaleSlope", "RescaleIntercept", "AcquisitionNumber",
    ):  # fmt: skip
        delattr(header, keyword)
    describe_pixels(header, values)
    header.NumberOfFrames = len(values)
    measures = item(PixelSpacing=list(PIXEL), SliceThickness=DISTANCE)
    shared = item(
        PixelMeasuresSequence=Sequence([measures]),
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]),
        PixelValueTransformationSequence=Sequence(
            [item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")]
        ),
    )
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    header.PerFrameFunctionalGroupsSequence = Sequence(
        [
            item(
                PlanePositionSequence=Sequence([item(ImagePositionPatient=_corner(first + frame))])
            )
            for frame in range(len(values))
        ]
    )
    return header


def _corner(index: int) -> list[float]:
    return [*CORNER[:2], CORNER[2] + DISTANCE * index]
