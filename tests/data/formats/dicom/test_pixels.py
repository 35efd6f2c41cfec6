"""Pixels of DICOM: what the tags say of them is applied or refused, by whichever decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from cache_helpers import cache_files
from dicom_helpers import chest, ct_slice, item, write_ct
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from data.formats.dicom.pixels import PixelReader, check_pixels
from data.formats.dicom.slice_files import read_slice_headers
from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
# Of each transfer syntax that pydicom has a grey file of; GDCM reads them all.
GREY = (
    "CT_small.dcm",  # explicit little endian
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_padded.dcm",
    "image_dfl.dcm",  # deflated
    "examples_overlay.dcm",  # 12 of 16 bits
    "MR_small_RLE.dcm",
    "JPGExtended.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small_jp2klossless.dcm",
    "693_J2KI.dcm",  # JPEG 2000 with slope and intercept
    "J2K_pixelrep_mismatch.dcm",
)


def read_alone(path: Path) -> np.ndarray:
    """Pixels of a file in a folder of its own."""
    (header,) = read_slice_headers(path.parent)
    check_pixels(header)
    return PixelReader().read(header)


@pytest.mark.parametrize("name", GREY)
def test_every_transfer_syntax_is_read_as_itk_and_pydicom_read_it(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes((SAMPLES / name).read_bytes())
    found = read_alone(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(reader.Execute())[0])
    dataset = pydicom.dcmread(path)
    packed = {JPEGExtended12Bit: imagecodecs.jpeg_decode} | dict.fromkeys(
        (JPEGLSLossless, JPEGLSNearLossless), imagecodecs.jpegls_decode
    )
    if decode := packed.get(dataset.file_meta.TransferSyntaxUID):  # pydicom has no decoder
        (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
        stored = decode(stream)
        pixels = stored.astype(f"{'ui'[dataset.PixelRepresentation]}{stored.itemsize}")
    else:
        pixels = dataset.pixel_array
    np.testing.assert_array_equal(found, apply_modality_lut(pixels, dataset))


def compressed(path: Path, values: np.ndarray, compressor: str) -> None:
    """Write HU (rows, columns) by GDCM, as JPEG 2000 or lossless JPEG."""
    image = sitk.GetImageFromArray(values[None] + np.int16(1024))
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.SetFileName(str(path))
    writer.Execute(image)


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG", "RLE", "none"])
@pytest.mark.parametrize("shown_as", ["MONOCHROME1", "MONOCHROME2"])
def test_how_values_are_shown_does_not_change_them(
    tmp_path: Path, compressor: str, shown_as: str
) -> None:
    (values,) = chest(1)
    path = tmp_path / "one.dcm"
    if compressor == "none":
        ct_slice(values).save_as(path, enforce_file_format=True)
    else:
        compressed(path, values, compressor)
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID.is_compressed == (compressor != "none")
    dataset.PhotometricInterpretation = shown_as
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "-512"
    dataset.save_as(path)
    np.testing.assert_array_equal(read_alone(path), values / 2)


def test_a_table_of_values_is_applied(tmp_path: Path) -> None:
    stored = np.arange(12).reshape(3, 4)
    table = (1000 - 10 * np.arange(16)).astype(np.uint16)
    header = ct_slice(stored - 1024)
    del header.RescaleSlope, header.RescaleIntercept
    header.PixelRepresentation = 0
    header.ModalityLUTSequence = Sequence(
        [
            item(
                LUTDescriptor=[16, 0, 16],
                LUTData=table.astype("<u2").tobytes(),
                ModalityLUTType="HU",
            )
        ]
    )
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_alone(tmp_path / "1.dcm"), table[stored])


def with_table(values: np.ndarray, **elements: object) -> Dataset:
    header = ct_slice(values)
    header.ModalityLUTSequence = Sequence([item(**elements)] if elements else [])
    return header


def test_an_empty_table_leaves_the_intercept(tmp_path: Path) -> None:
    (values,) = chest(1)
    header = with_table(values)
    del header.RescaleSlope
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_alone(tmp_path / "1.dcm"), values)


@pytest.mark.parametrize(
    "elements",
    [
        {"LUTDescriptor": [16, 0, 16], "LUTData": bytes(20)},
        {"LUTDescriptor": [16, 0, 16]},
        {"LUTDescriptor": [16, 0], "LUTData": bytes(32)},
    ],
)
def test_a_damaged_table_is_one_line(tmp_path: Path, elements: dict[str, object]) -> None:
    header = with_table(chest(1)[0], **elements)
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match=r"1\.dcm cannot be decoded"):
        read_alone(tmp_path / "1.dcm")


def test_a_table_of_12_bits_from_a_negative_value_on(tmp_path: Path) -> None:
    stored = np.arange(-6, 6).reshape(3, 4)
    table = (3000 + np.arange(10)).astype("<u2")
    header = with_table(stored - 1024, LUTDescriptor=[10, -5, 12], LUTData=table.tobytes())
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    expected = table[np.clip(stored + 5, 0, 9)]
    np.testing.assert_array_equal(read_alone(tmp_path / "1.dcm"), expected)


def test_bits_above_the_stored_ones_are_no_value(tmp_path: Path) -> None:
    (values,) = chest(1)
    header = ct_slice(values)
    stored = (values + 1024).astype(np.uint16)
    header.BitsStored, header.HighBit, header.PixelRepresentation = 12, 11, 0
    overlay = np.random.default_rng(1).integers(0, 16, stored.shape).astype(np.uint16) << 12
    header.PixelData = (stored | overlay).astype("<u2").tobytes()
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    image = sitk.ReadImage(str(tmp_path / "1.dcm"))
    found = read_alone(tmp_path / "1.dcm")
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(image)[0])
    np.testing.assert_array_equal(found, values)


def changed(**values: object) -> object:
    def edit(header: Dataset, index: int) -> None:
        if index == 2:
            for keyword, value in values.items():
                setattr(header, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"IM0002 is in colour \(PALETTE COLOR\)"),
        ({"RescaleSlope": "0"}, "IM0002 states RescaleSlope 0, all values would be alike"),
        ({"HighBit": 14}, "IM0002 has 16 of 16 bits that end at bit 14, expected 15"),
        ({"BitsStored": 0}, "IM0002 has 0 of 16 bits that end at bit 15, expected -1"),
    ],
)
def test_what_would_change_values_unseen_is_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    write_ct(tmp_path / "s", chest(), changed(**values))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        read_volume(tmp_path / "s")


def replace_text(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert len(old) == len(new)
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_a_number_with_a_comma_is_refused_by_its_text(tmp_path: Path) -> None:
    *_, last = write_ct(
        tmp_path / "s", chest(), lambda header, _: setattr(header, "RescaleSlope", "1.25")
    )
    replace_text(last, b"1.25", b"1,25")
    with pytest.raises(UserError, match=r'IM0003 has "1,25" in RescaleSlope, expected 1 number'):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("lost", [1, 600])
def test_fewer_bytes_than_promised_are_refused_before_anything_is_decoded(
    tmp_path: Path, lost: int
) -> None:
    def shorten(header: Dataset, index: int) -> None:
        if index == 3:
            header.PixelData = header.PixelData[: -lost - lost % 2]

    write_ct(tmp_path / "s", chest(), shorten)
    with pytest.raises(UserError, match=r"IM0003 is truncated: it holds \d+ bytes of pixels, its"):
        read_volume(tmp_path / "s")
    assert not list((tmp_path / "cache").glob("[!.]*"))


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_a_compressed_image_that_ends_too_early_is_refused(tmp_path: Path, compressor: str) -> None:
    path = tmp_path / "one.dcm"
    compressed(path, chest(1)[0], compressor)
    dataset = pydicom.dcmread(path)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    dataset.save_as(path)
    with pytest.raises(UserError, match=r"one\.dcm cannot be decoded \(its compressed pixels end"):
        read_alone(path)


def test_bytes_that_moved_the_pixels_are_seen_behind_them(tmp_path: Path) -> None:
    *_, last = write_ct(tmp_path / "s", chest())
    content = last.read_bytes()
    last.write_bytes(content[:-500] + b"inserted" * 9 + content[-500:])
    with pytest.raises(UserError, match=r"IM0003 cannot be read \(what stands behind its pixels"):
        read_volume(tmp_path / "s")
    last.write_bytes(content + bytes(700))
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, chest())
    # Padding, signatures and makers' own elements may stand there.
    for tag in (b"\xfc\xff\xfc\xff", b"\xe1\x7f\x10\x00"):
        last.write_bytes(content + tag + b"OB\0\0" + (4).to_bytes(4, "little") + b"more")
        np.testing.assert_array_equal(read_volume(tmp_path / "s").array, chest())


def test_a_file_without_its_pixels_is_cut_off(tmp_path: Path) -> None:
    *_, last = write_ct(tmp_path / "s", chest())
    content = last.read_bytes()
    last.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00")])
    with pytest.raises(UserError, match=r"IM0003 is truncated: it holds 0 bytes of pixels"):
        read_volume(tmp_path / "s")
    last.write_bytes(content[:300])
    with pytest.raises(UserError, match=r"IM0003 .*(cannot be read|cut off)"):
        read_volume(tmp_path / "s")


def test_run_length_frames_of_one_file(tmp_path: Path) -> None:
    values = chest()
    paths = write_ct(tmp_path / "s", values)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, values)


def lossless_jpeg(values: np.ndarray) -> bytes:
    return bytes(imagecodecs.ljpeg_encode(values.astype(np.uint16), bitspersample=16))


def write_packed(folder: Path, pack: Callable[[np.ndarray], bytes], syntax: UID) -> np.ndarray:
    """A series of whose unsigned values `pack` makes the compressed pixels."""
    values = chest()

    def edit(header: Dataset, index: int) -> None:
        stored = (values[index] + 1024).astype(np.uint16)
        header.PixelRepresentation = 0
        header.file_meta.TransferSyntaxUID = syntax
        header.PixelData = encapsulate([pack(stored)])

    write_ct(folder, values, edit)
    return values


@pytest.mark.parametrize(
    ("pack", "syntax"),
    [(lossless_jpeg, JPEGLosslessSV1), (imagecodecs.jpegls_encode, JPEGLSLossless)],
)
def test_a_compressed_stream_has_the_size_of_its_header(
    tmp_path: Path, pack: Callable[[np.ndarray], bytes], syntax: UID
) -> None:
    values = write_packed(tmp_path / "right", pack, syntax)
    np.testing.assert_array_equal(read_volume(tmp_path / "right").array, values)
    write_packed(tmp_path / "turned", lambda stored: pack(stored.T.copy()), syntax)
    with pytest.raises(UserError, match=r"have 20 rows and 24 columns, expected 24, 20"):
        read_volume(tmp_path / "turned")


def test_a_lossless_jpeg_that_ends_early_is_not_filled_up(tmp_path: Path) -> None:
    def shortened(stored: np.ndarray) -> bytes:
        packed = lossless_jpeg(stored)
        return packed[: len(packed) * 2 // 3] + b"\xff\xd9"

    write_packed(tmp_path / "s", shortened, JPEGLosslessSV1)
    with pytest.raises(UserError, match="its compressed pixels end too early"):
        read_volume(tmp_path / "s")
    assert cache_files() == []


@pytest.mark.parametrize("keyword", ["PhotometricInterpretation", "BitsStored", "HighBit"])
def test_what_every_reader_takes_for_granted_may_be_left_out(tmp_path: Path, keyword: str) -> None:
    def edit(header: Dataset, index: int) -> None:
        delattr(header, keyword)

    paths = write_ct(tmp_path / "s", chest(), edit)
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage([str(path) for path in paths]))
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, by_itk)


def test_a_run_length_file_that_was_cut_off_is_truncated(tmp_path: Path) -> None:
    *_, last = write_ct(tmp_path / "s", chest())
    dataset = pydicom.dcmread(last)
    dataset.compress(RLELossless)
    dataset.save_as(last)
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"IM0003 (is truncated|cannot be decoded)"):
        read_volume(tmp_path / "s")
    assert cache_files() == []
