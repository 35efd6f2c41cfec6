"""Headers of DICOM slices, read by pydicom: which files of a folder hold slices, how many frames
each has, and what they say of their place and values."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from data.volumes.names import looks_like_dicom
from util.errors import UserError, reason_of

# Odd values would be warned of in the middle of a progress bar; those that matter raise UserError.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")

# Storage classes that carry no slices of a scan: DICOMDIR, waveforms, presentation states,
# parametric maps, segmentations and raw data, value mappings, structured reports, encapsulated
# documents, radiotherapy objects.
NO_SLICES = (
    "1.2.840.10008.1.3.10",
    *(
        f"1.2.840.10008.5.1.4.1.1.{branch}"
        for branch in ("9.", "11.", "30", "66", "67", "88.", "104.", "481.")
    ),
)
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
}
PIXELS = tuple(Tag(word) for word in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
UNDEFINED = 0xFFFFFFFF  # length of a sequence of compressed frames
PLAIN_HEAD, LONG_HEAD = 8, 12  # bytes of an element before its value, implicit and explicit
BEHIND_PIXELS = (0xFFFA, 0xFFFC)  # groups that may stand there: signatures, padding
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
        """PixelSpacing as (x, y) in mm, or None."""
        stated = self.numbers("PixelSpacing", 2)
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
    def acquisition(self) -> tuple[str, str]:
        """Words that tell acquisitions and time points of one series apart."""
        return (
            self.text("FrameAcquisitionNumber") or self.text("AcquisitionNumber"),
            self.text("TemporalPositionIndex") or self.text("TemporalPositionIdentifier"),
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


def read_slice_headers(folder: Path) -> list[SliceHeader]:
    """Headers of all DICOM slices directly inside a folder, in the order of their names.

    Files that are no DICOM, and DICOM objects without slices (DICOMDIR, reports, contours,
    segmentations, doses), are left out. Of a multi-frame file each frame is a slice.

    Raises:
        UserError: a DICOM slice that cannot be read or holds fewer pixels than it promises.
    """
    headers: list[SliceHeader] = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and looks_like_dicom(path):
            headers += headers_of_file(path)
    return headers


def holds_slices(folder: Path) -> bool:
    """Whether a folder holds a DICOM slice, or a file that may be one and cannot be read."""
    paths = (path for path in sorted(folder.iterdir()) if path.is_file() and looks_like_dicom(path))
    try:
        return any(headers_of_file(path) for path in paths)
    except UserError:
        return True


def value_of(dataset: Dataset, keyword: str, path: Path) -> Any:
    """An element's value, None where it is missing.

    Raises:
        UserError: pydicom cannot convert it.
    """
    try:
        return dataset.get(keyword)
    except Exception as error:  # pydicom's errors of conversion have many types
        raise _unreadable(path, f"{keyword}: {reason_of(error)}") from error


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


def headers_of_file(path: Path) -> list[SliceHeader]:
    """A header for each slice of a file; none for an object that holds no slices of a scan."""
    dataset, pixel_bytes = _read_to_pixels(path)
    meta = getattr(dataset, "file_meta", Dataset())
    stated = value_of(dataset, "SOPClassUID", path)
    storage = UID(str(stated or value_of(meta, "MediaStorageSOPClassUID", path) or ""))
    no_image = storage and "Rows" not in dataset and "Image Storage" not in storage.name
    if storage.startswith(NO_SLICES) or (no_image and pixel_bytes is None):
        return []
    header = SliceHeader(path, dataset, pixel_bytes or 0)
    if min(header.size) < 1:
        raise _unreadable(path, "it has no pixels")
    columns, rows = header.size
    frames = header.whole_number("NumberOfFrames", 1) or 1  # some scanners write 0 for one
    packed = transfer_syntax(dataset, path).is_compressed
    least = 1 if packed else columns * rows / 8  # bytes of a frame
    if not 1 <= frames <= max(1, header.pixel_bytes / least):
        raise UserError(
            f"DICOM slice {path} states {frames} frames in {header.pixel_bytes} bytes of pixels: "
            "copy or export it again"
        )
    return [
        SliceHeader(path, dataset, header.pixel_bytes, frame, frames) for frame in range(frames)
    ]


def _read_to_pixels(path: Path) -> tuple[Dataset, int | None]:
    """A file's header, and the bytes of pixels behind it; None where it holds none."""
    lengths: list[int] = []

    def at_pixels(tag: BaseTag, _: str | None, length: int) -> bool:
        if tag in PIXELS:
            lengths.append(length)
        return tag in PIXELS

    try:
        with path.open("rb") as stream:
            dataset = read_partial(stream, at_pixels, force=True)
            head = PLAIN_HEAD if dataset.original_encoding[0] else LONG_HEAD
            there = max(os.fstat(stream.fileno()).st_size - stream.tell() - head, 0)
            behind = _group_behind(stream, dataset, lengths[0]) if lengths else None
    except OSError:
        raise
    except Exception as error:  # pydicom's errors have many types
        raise _unreadable(path, reason_of(error)) from error
    if not lengths:
        return dataset, None
    makers_own = behind is not None and behind % 2 and behind > PIXELS[0].group
    if behind is not None and not makers_own and behind not in BEHIND_PIXELS:
        raise _unreadable(path, "what stands behind its pixels is no element, so they may be moved")
    # A deflated file is unpacked in memory; what lacks in it shows when its pixels are decoded.
    stated = value_of(dataset.file_meta, "TransferSyntaxUID", path)
    deflated = stated == DeflatedExplicitVRLittleEndian
    return dataset, lengths[0] if deflated else min(lengths[0], there)


def _group_behind(stream: BinaryIO, dataset: Dataset, length: int) -> int | None:
    """Group of the element behind the pixels that a stream stands before; None for the end of the
    file, zeros, and pixels whose length is not stated."""
    implicit, little = dataset.original_encoding
    stream.seek(length + (PLAIN_HEAD if implicit else LONG_HEAD), os.SEEK_CUR)
    group = stream.read(2)
    padded = not any(group) and not any(stream.read())  # with zeros, to whole blocks
    if length == UNDEFINED or len(group) < 2 or padded:
        return None
    return int.from_bytes(group, "little" if little else "big")


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"DICOM slice {path} cannot be read ({reason}): copy or export it again")


def _raw_text(holder: Dataset, keyword: str) -> str:
    """A value as the file has it, shortened."""
    value = holder.get_item(keyword).value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")[:MOST_SHOWN]
