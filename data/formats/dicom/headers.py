"""What the header of a DICOM slice says of its place and values, by pydicom."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from util.errors import UserError, reason_of

# Odd values would be warned of in the middle of a progress bar; those that matter raise UserError.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")

# Multi-frame objects keep these a frame, or shared by all: PS3.3, C.7.6.16.
FUNCTIONAL_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "StackID": "FrameContentSequence",
}
MOST_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, eq=False)
class SliceHeader:
    """One slice of a series: a DICOM file, or a frame of one."""

    path: Path
    dataset: Dataset  # the file's header, without its pixels
    pixel_bytes: int  # that the file holds behind its header
    frame: int = 0
    frames: int = 1  # of the file

    @property
    def shown(self) -> str:
        """The slice's name in a message."""
        return self.path.name if self.frames == 1 else f"{self.path.name} frame {self.frame + 1}"

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID, or ""."""
        return self.text("SeriesInstanceUID")

    @property
    def size(self) -> tuple[int, int]:
        """(columns, rows)."""
        return self.whole_number("Columns"), self.whole_number("Rows")

    @property
    def position(self) -> np.ndarray | None:
        """ImagePositionPatient (3,) in mm, LPS, or None."""
        stated = self.numbers("ImagePositionPatient", 3)
        return None if stated is None else np.array(stated)

    @property
    def axes(self) -> np.ndarray:
        """ImageOrientationPatient (2, 3): directions of growing column and growing row, LPS; those
        of an axial slice where it is not stated."""
        stated = self.numbers("ImageOrientationPatient", 6) or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        return np.reshape(stated, (2, 3))

    @property
    def spacing(self) -> tuple[float, float] | None:
        """PixelSpacing as (x, y) in mm, or None.

        Raises:
            UserError: a size that is none.
        """
        stated = self.numbers("PixelSpacing", 2)
        if stated is not None and min(stated) <= 0:
            raise UserError(
                f"DICOM slice {self.path} states PixelSpacing {stated[0]:g} and {stated[1]:g} mm, "
                "expected sizes above 0: export the series again"
            )
        return None if stated is None else (stated[1], stated[0])  # rows' distance (y) comes first

    @property
    def thickness(self) -> float | None:
        """SpacingBetweenSlices or SliceThickness in mm, the first that is no 0, or None."""
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            if (stated := self.numbers(keyword, 1)) and stated[0] != 0:
                return abs(stated[0])
        return None

    @property
    def rescale(self) -> tuple[float, float]:
        """(slope, intercept): value = stored * slope + intercept.

        Raises:
            UserError: a slope of 0.
        """
        slope = self.numbers("RescaleSlope", 1) or (1.0,)
        intercept = self.numbers("RescaleIntercept", 1) or (0.0,)
        if slope[0] == 0:
            raise UserError(
                f"DICOM slice {self.path} states RescaleSlope 0, all values would be alike: "
                "export the series again"
            )
        return slope[0], intercept[0]

    @property
    def states_rescale(self) -> bool:
        """Whether slope or intercept are stated."""
        return self.text("RescaleIntercept") != "" or self.text("RescaleSlope") != ""

    @property
    def acquisition(self) -> tuple[str, ...]:
        """Words that tell acquisitions, time points and stacks of one series apart."""
        return (
            self.text("FrameAcquisitionNumber") or self.text("AcquisitionNumber"),
            self.text("TemporalPositionIndex") or self.text("TemporalPositionIdentifier"),
            self.text("StackID"),
            *(self.text(keyword) for keyword in ("EchoNumbers", "ConvolutionKernel", "KVP")),
        )

    def text(self, keyword: str) -> str:
        """A value as text, "" where it is missing or empty."""
        holder = self._holder(keyword)
        try:
            value = holder.get(keyword)
        except Exception:  # noqa: BLE001 - as in `numbers`
            return _raw_text(holder, keyword)
        return "" if value is None else str(value).strip(" \0")

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """The numbers of a value, or None where it is missing or empty.

        Raises:
            UserError: other text, another count, NaN or infinity.
        """
        holder = self._holder(keyword)
        if keyword not in holder:
            return None
        try:
            element = holder[keyword]
            if element.is_empty:
                return None
            numbers = tuple(map(float, [element.value] if element.VM == 1 else element.value))
        except Exception:  # noqa: BLE001 - pydicom's errors of conversion have many types
            numbers = ()
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise UserError(
                f'DICOM slice {self.path} has "{_raw_text(holder, keyword)}" in {keyword}, '
                f"expected {count} numbers: export the series again"
            )
        return numbers

    def whole_number(self, keyword: str, otherwise: int | None = None) -> int:
        """A whole number; `otherwise` where it is missing.

        Raises:
            UserError: missing without another value for it, or no number.
        """
        stated = self.numbers(keyword, 1)
        if stated is not None:
            return int(stated[0])
        if otherwise is None:
            raise UserError(
                f"DICOM slice {self.path} states no {keyword}, it is cut off or no image: copy or "
                "export it again"
            )
        return otherwise

    def _holder(self, keyword: str) -> Dataset:
        """What states a value of this frame: its own groups, the shared ones, or the file."""
        group = FUNCTIONAL_GROUPS.get(keyword)
        if group is None:
            return self.dataset
        own = value_of(self.dataset, "PerFrameFunctionalGroupsSequence", self.path) or []
        shared = value_of(self.dataset, "SharedFunctionalGroupsSequence", self.path) or []
        for groups in (*own[self.frame : self.frame + 1], *shared[:1]):
            for holder in value_of(groups, group, self.path) or []:
                if keyword in holder:
                    return holder
        return self.dataset


def value_of(dataset: Dataset, keyword: str, path: Path) -> Any:
    """An element's value, None where it is missing.

    Raises:
        UserError: pydicom cannot convert it.
    """
    try:
        return dataset.get(keyword)
    except Exception as error:  # pydicom's errors of conversion have many types
        raise unreadable(path, f"{keyword}: {reason_of(error)}") from error


def transfer_syntax(dataset: Dataset, path: Path) -> UID:
    """How a file's pixels are stored; guessed from its elements where it does not say.

    Raises:
        UserError: not known to pydicom.
    """
    meta = getattr(dataset, "file_meta", Dataset())
    implicit, little = dataset.original_encoding
    guessed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    stated = value_of(meta, "TransferSyntaxUID", path)
    syntax = UID(str(stated or (ImplicitVRLittleEndian if implicit else guessed)))
    if not syntax.is_transfer_syntax:
        raise UserError(
            f"DICOM slice {path} has pixels of the unknown transfer syntax {syntax[:MOST_SHOWN]}: "
            "export it uncompressed"
        )
    return syntax


def unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"DICOM slice {path} cannot be read ({reason}): copy or export it again")


def _raw_text(holder: Dataset, keyword: str) -> str:
    """A value as the file has it, shortened."""
    value = holder.get_item(keyword).value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")[:MOST_SHOWN]
