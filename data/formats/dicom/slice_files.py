"""Which DICOM files hold slices of a scan, how many frames each has, and whether its pixels are all
there; nothing is decoded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from data.formats.dicom.headers import SliceHeader, transfer_syntax, unreadable, value_of
from data.volumes.names import looks_like_dicom
from util.errors import UserError, reason_of

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
PIXELS = tuple(Tag(word) for word in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
UNDEFINED = 0xFFFFFFFF  # length of a sequence of compressed frames
PLAIN_HEAD, LONG_HEAD = 8, 12  # bytes of an element before its value, implicit and explicit
BEHIND_PIXELS = (0xFFFA, 0xFFFC)  # groups that may stand there: signatures, padding


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


def slices_of(path: Path) -> list[SliceHeader]:
    """Headers of a DICOM folder or file; none of anything else."""
    if path.is_dir():
        return read_slice_headers(path)
    return headers_of_file(path) if path.is_file() and looks_like_dicom(path) else []


def holds_slices(folder: Path) -> bool:
    """Whether a folder holds a DICOM slice, or a file that may be one and cannot be read."""
    paths = (path for path in sorted(folder.iterdir()) if path.is_file() and looks_like_dicom(path))
    try:
        return any(headers_of_file(path) for path in paths)
    except UserError:
        return True


def storage_classes(path: Path) -> list[str]:
    """What the DICOM objects of a folder, or a file, are called: "Segmentation Storage"."""
    names = set()
    for one in sorted(path.iterdir()) if path.is_dir() else [path]:
        if one.is_file() and looks_like_dicom(one):
            storage = UID(str(_read_to_pixels(one)[0].get("SOPClassUID", "")))
            names.add(storage.name or "an object without a class")
    return sorted(names)


def headers_of_file(path: Path) -> list[SliceHeader]:
    """A header for each slice of a file; none for an object that holds no slices of a scan."""
    dataset, pixel_bytes = _read_to_pixels(path)
    meta = getattr(dataset, "file_meta", Dataset())
    stated = value_of(dataset, "SOPClassUID", path)
    storage = UID(str(stated or value_of(meta, "MediaStorageSOPClassUID", path) or ""))
    if storage.startswith(NO_SLICES) or (pixel_bytes is None and _is_no_image(storage, dataset)):
        return []
    header = SliceHeader(path, dataset, pixel_bytes or 0)
    if min(header.size) < 1:
        raise unreadable(path, "it has no pixels")
    columns, rows = header.size
    frames = header.whole_number("NumberOfFrames", 1) or 1  # some scanners write 0 for one
    packed = transfer_syntax(dataset, path).is_compressed
    least = 1 if packed else columns * rows / 8  # bytes of a frame
    if not 1 <= frames <= max(1, header.pixel_bytes / least):
        raise UserError(
            f"DICOM slice {path} states {frames} frames in {header.pixel_bytes} bytes of pixels: "
            "copy or export it again"
        )
    groups = value_of(dataset, "PerFrameFunctionalGroupsSequence", path)
    if groups and len(groups) != frames:
        raise UserError(
            f"DICOM slice {path} states {frames} frames and describes {len(groups)}: export it "
            "again"
        )
    return [
        SliceHeader(path, dataset, header.pixel_bytes, frame, frames) for frame in range(frames)
    ]


def _is_no_image(storage: UID, dataset: Dataset) -> bool:
    """Whether an object without pixels is one that should have none: of any class but the images of
    the standard. A slice whose header is damaged is not: it has rows, or no class."""
    is_class = re.fullmatch(r"\d+(\.\d+)+", storage, re.ASCII) is not None
    return is_class and "Rows" not in dataset and "Image Storage" not in storage.name


def frames_of(path: Path) -> list[SliceHeader]:
    """Headers of a DICOM file that is named as a volume; as `headers_of_file`.

    Raises:
        UserError: it holds one slice.
    """
    headers = headers_of_file(path)
    if len(headers) == 1:
        raise UserError(
            f"{path} is one slice of a DICOM series: give its folder, {path.parent}, instead"
        )
    return headers


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
        raise unreadable(path, reason_of(error)) from error
    if not lengths:
        return dataset, None
    makers_own = behind is not None and behind % 2 and behind > PIXELS[0].group
    if behind is not None and not makers_own and behind not in BEHIND_PIXELS:
        raise unreadable(path, "what stands behind its pixels is no element, so they may be moved")
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
