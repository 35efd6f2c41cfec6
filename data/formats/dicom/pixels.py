"""Pixels of DICOM slices: decoded by pydicom or, where they are compressed, by GDCM (SimpleITK);
what their tags mean is applied here for both."""

from __future__ import annotations

import math
import struct
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID, RLELossless, generate_uid

from data.formats.dicom.headers import SliceHeader, transfer_syntax
from data.formats.dicom.slice_files import PIXELS
from util.errors import UserError, reason_of

GREY = ("MONOCHROME1", "MONOCHROME2")
END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
TOO_EARLY = "its compressed pixels end too early"
LOSSLESS_JPEG, FILL = 0xC3, 0xFF
# SOF0 to SOF15 but for those that mean something else, and SOF55 of JPEG-LS.
STARTS_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# What a decoder has to know of a compressed slice. All else would change what GDCM hands out.
PIXEL_MODULE = (
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


def check_pixels(header: SliceHeader) -> None:
    """Refuse slices whose values are not grey ones, or not all there; nothing is decoded.

    MONOCHROME1 says how to show values, not what they mean: they are the same as MONOCHROME2's.

    Raises:
        UserError: colour or a palette; fewer bytes than promised; bits at an unusual place.
    """
    path = header.path
    photometric = header.text("PhotometricInterpretation")
    if header.whole_number("SamplesPerPixel", 1) != 1 or photometric not in (*GREY, ""):
        raise UserError(
            f"DICOM slice {path} is in colour ({photometric}): give a grey-scale CT series"
        )
    columns, rows = header.size
    allocated = header.whole_number("BitsAllocated")
    promised = math.ceil(columns * rows * header.frames * allocated / 8)
    # How long compressed pixels are shows when they are decoded.
    packed = transfer_syntax(header.dataset, path).is_compressed
    if header.pixel_bytes < promised and not (packed and header.pixel_bytes):
        raise UserError(
            f"DICOM slice {path} is truncated: it holds {header.pixel_bytes} bytes of pixels, its "
            f"header promises {promised}: copy or export it again"
        )
    stored = header.whole_number("BitsStored", allocated)
    high = header.whole_number("HighBit", stored - 1)
    if not 0 < stored <= allocated or high != stored - 1:
        raise UserError(
            f"DICOM slice {path} has {stored} of {allocated} bits that end at bit {high}, expected "
            f"{stored - 1}: export the series again"
        )


class PixelReader:
    """Reads slices one after the other; of a multi-frame file, the file only once."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._dataset = Dataset()

    def read(self, header: SliceHeader) -> np.ndarray:
        """Values (rows, columns): integers where slope and intercept are, else float64.

        Raises:
            UserError: pixels that cannot be decoded, or fewer than promised.
        """
        if header.path != self._path:
            self._dataset = _read_whole(header.path)
            self._path = header.path
            if not any(tag in self._dataset for tag in PIXELS):
                raise UserError(
                    f"DICOM slice {header.path} is truncated, its pixels do not end: copy or "
                    "export it again"
                )
            _add_what_is_usual(self._dataset)
        syntax = transfer_syntax(self._dataset, header.path)
        try:
            if syntax.is_compressed and syntax != RLELossless:
                stored = _decode_packed(self._dataset, syntax, header.frame, header.frames)
            else:
                stored, _ = get_decoder(syntax).as_array(
                    self._dataset, index=header.frame, raw=True
                )
            if table := self._dataset.get("ModalityLUTSequence"):
                return _through_table(stored, table[0], self._dataset)
        except Exception as error:  # the decoders raise errors of many types
            raise UserError(
                f"DICOM slice {header.path} cannot be decoded ({reason_of(error)}): export it "
                "again, uncompressed if need be"
            ) from error
        slope, intercept = header.rescale
        if slope.is_integer() and intercept.is_integer():
            return stored.astype(np.int64) * int(slope) + int(intercept)
        return stored * slope + intercept


def _add_what_is_usual(dataset: Dataset) -> None:
    """State what a file leaves out and every reader takes for granted."""
    stored = dataset.get("BitsStored") or dataset.get("BitsAllocated") or 1
    usual = {
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
    }  # whether values are signed is not guessed
    for keyword, value in usual.items():
        if dataset.get(keyword) in (None, ""):
            setattr(dataset, keyword, value)


def _read_whole(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, force=True)
    except OSError:
        raise
    except Exception as error:  # pydicom's errors have many types
        raise UserError(
            f"DICOM slice {path} cannot be read ({reason_of(error)}): copy or export it again"
        ) from error


def check_stream(packed: bytes, size: tuple[int, int]) -> None:
    """Refuse a JPEG or JPEG-LS stream of another size (rows, columns) than its header states, and a
    lossless one that ends early: GDCM fills both up without a word.

    Raises:
        ValueError: says what.
    """
    frame = _start_of_frame(packed)
    if frame is None:  # JPEG 2000, whose size GDCM looks at
        return
    kind, *stated = frame
    if tuple(stated) != size:
        shown = " rows and ".join(map(str, stated))
        raise ValueError(
            f"its compressed pixels have {shown} columns, expected {size[0]}, {size[1]}"
        )
    if kind == LOSSLESS_JPEG:
        import imagecodecs  # most series do without

        try:
            imagecodecs.ljpeg_decode(packed)
        except imagecodecs.LjpegError as error:
            if "CORRUPT" in str(error):  # it does not know every lossless stream
                raise ValueError(TOO_EARLY) from error


def _start_of_frame(packed: bytes) -> tuple[int, int, int] | None:
    """(marker's second byte, rows, columns) of a JPEG or JPEG-LS stream (ISO 10918-1, B.2.2)."""
    place = 2
    while packed[place : place + 1] == b"\xff" and len(packed) >= place + 9:
        kind = packed[place + 1]
        if kind in STARTS_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", packed, place + 5)
            return kind, rows, columns
        place += 1 if kind == FILL else 2 + struct.unpack_from(">H", packed, place + 2)[0]
    return None


def _decode_packed(dataset: Dataset, syntax: UID, frame: int, frames: int) -> np.ndarray:
    """Stored values of one frame by GDCM, which gets them without any tag that it would apply."""
    import SimpleITK as sitk  # noqa: N813 - loading it takes a while, and most series do without

    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # it would land in a progress bar
    packed = get_frame(dataset.PixelData, frame, number_of_frames=frames)
    if not packed.rstrip(b"\0\xff").endswith(END_OF_IMAGE):
        raise ValueError(TOO_EARLY)
    check_stream(packed, (int(dataset.Rows), int(dataset.Columns)))
    plain = Dataset()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = syntax
    plain.SOPClassUID = plain.file_meta.MediaStorageSOPClassUID = UID(SECONDARY_CAPTURE)
    plain.SOPInstanceUID = plain.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for word in PIXEL_MODULE:
        if word in dataset:
            setattr(plain, word, dataset[word].value)
    plain.PhotometricInterpretation = "MONOCHROME2"
    plain.PixelData = encapsulate([packed])
    with tempfile.NamedTemporaryFile(suffix=".dcm") as stream:
        plain.save_as(stream.name, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(stream.name)
        pixels = sitk.GetArrayFromImage(reader.Execute())
    return pixels.reshape(dataset.Rows, dataset.Columns)


def _through_table(stored: np.ndarray, table: Dataset, dataset: Dataset) -> np.ndarray:
    """Values by a modality LUT (PS3.3, C.11.1): entry 0 for all up to the first value, the last
    one for all beyond.

    Raises:
        ValueError: a table with fewer entries than it promises.
    """
    count, first, _ = (int(number) for number in table.LUTDescriptor)
    count = count % (1 << 16) or 1 << 16  # of tables beside signed pixels it is a signed number
    data = table.LUTData
    if isinstance(data, bytes):  # one or two bytes an entry, in the byte order of the file
        order = "<" if dataset.original_encoding[1] else ">"
        data = np.frombuffer(data, np.uint8 if len(data) == count else f"{order}u2")
    entries = np.atleast_1d(np.asarray(data)).astype(np.int64)
    if len(entries) < count:
        raise ValueError(f"its table of values has {len(entries)} of {count} entries")
    if first >= 1 << 15 and np.issubdtype(stored.dtype, np.signedinteger):
        first -= 1 << 16
    return entries[np.clip(stored.astype(np.int64) - first, 0, count - 1)]
