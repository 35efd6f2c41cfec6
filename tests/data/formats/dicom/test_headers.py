"""Which DICOM files hold slices, and where each frame says that it lies."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from dicom_helpers import CORNER, DISTANCE, PIXEL, chest, ct_slice, enhanced_ct, write_ct
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from data.formats.dicom.slice_files import read_slice_headers
from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_by_itk(paths: list[Path]) -> np.ndarray:
    """RAS+ affine of slices that ITK orders and places by itself."""
    names = [str(path) for path in paths]
    image = sitk.ReadImage(names if len(names) > 1 else names[0])
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def test_a_series_lies_where_itk_puts_it(tmp_path: Path) -> None:
    values = chest()
    paths = write_ct(tmp_path / "s", values)
    volume = read_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.affine, affine_by_itk(paths), atol=1e-6)
    np.testing.assert_array_equal(volume.array, values)


@pytest.mark.parametrize("split", [(6,), (1,) * 6, (2, 4)])
def test_enhanced_ct_in_one_file_or_several(tmp_path: Path, split: tuple[int, ...]) -> None:
    values = chest(6)
    first = 0
    for count in split:
        header = enhanced_ct(values[first : first + count], first)
        # Names in an order that is not the slices'.
        header.save_as(tmp_path / f"{(first + 4) % 6}.dcm", enforce_file_format=True)
        first += count
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, values)
    expected = np.diag([-PIXEL[1], -PIXEL[0], DISTANCE, 1.0])
    expected[:3, 3] = (-CORNER[0], -CORNER[1], CORNER[2])
    np.testing.assert_allclose(volume.affine, expected, atol=1e-6)
    if len(split) == 1:  # ITK puts the frames of one file together as well
        np.testing.assert_allclose(affine_by_itk([tmp_path / "4.dcm"])[:3], expected[:3], atol=1e-6)


def test_one_enhanced_frame_alone_has_its_place_and_size(tmp_path: Path) -> None:
    enhanced_ct(chest(6)[3:4], 3).save_as(tmp_path / "1.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path)
    assert volume.spacing == pytest.approx((PIXEL[1], PIXEL[0], DISTANCE))
    assert volume.affine[2, 3] == pytest.approx(CORNER[2] + 3 * DISTANCE)
    assert volume.spacing_known


def test_frames_scaled_one_by_one(tmp_path: Path) -> None:
    header = enhanced_ct(chest(3))
    shared = header.SharedFunctionalGroupsSequence[0]
    scaling = shared.PixelValueTransformationSequence
    del shared.PixelValueTransformationSequence
    for number, groups in enumerate(header.PerFrameFunctionalGroupsSequence):
        mine = copy.deepcopy(scaling[0])
        mine.RescaleIntercept = -1024 + 100 * number
        groups.PixelValueTransformationSequence = pydicom.Sequence([mine])
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    steps = 100 * np.arange(3)[:, None, None]
    np.testing.assert_array_equal(read_volume(tmp_path).array, chest(3) + steps)


def test_frames_without_places_are_refused(tmp_path: Path) -> None:
    header = enhanced_ct(chest(3))
    groups = header.PerFrameFunctionalGroupsSequence
    for one in groups:
        one.PlanePositionSequence = groups[0].PlanePositionSequence
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match=r"1\.dcm holds 3 frames without a place for each"):
        read_volume(tmp_path)
    for one in groups:
        del one.PlanePositionSequence
    header.save_as(tmp_path / "1.dcm")
    with pytest.raises(UserError, match=r"1\.dcm states no ImagePositionPatient"):
        read_volume(tmp_path)


@pytest.mark.parametrize("frames", ["0", "-3", "100000"])
def test_a_number_of_frames_that_cannot_be(tmp_path: Path, frames: str) -> None:
    def edit(header: Dataset, index: int) -> None:
        header.NumberOfFrames = frames

    write_ct(tmp_path / "s", chest(1), edit)
    if frames == "0":  # written by scanners that have one frame
        assert read_volume(tmp_path / "s").num_slices == 1
        return
    with pytest.raises(UserError, match=f"states {frames} frames in 960 bytes"):
        read_volume(tmp_path / "s")


def segmentation(values: np.ndarray) -> Dataset:
    header = ct_slice(values[0])
    header.SOPClassUID, header.Modality = SEGMENTATION, "SEG"
    header.SeriesInstanceUID = generate_uid()
    header.NumberOfFrames = len(values)
    header.BitsAllocated = header.BitsStored = 1
    header.HighBit = header.PixelRepresentation = 0
    header.PixelData = np.packbits((values < -400).ravel(), bitorder="little").tobytes()
    return header


@pytest.mark.parametrize(
    "beside",
    [
        "rtdose.dcm",
        "rtstruct.dcm",
        "rtplan.dcm",
        "test-SR.dcm",
        "waveform_ecg.dcm",
        "liver_1frame.dcm",
    ],
)
def test_objects_without_slices_are_left_out(tmp_path: Path, beside: str) -> None:
    values = chest()
    write_ct(tmp_path / "s", values)
    shutil.copy(SAMPLES / beside, tmp_path / "s")
    segmentation(values).save_as(tmp_path / "s" / "seg.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, values)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "TransferSyntaxUID", "SharedFunctional"])
def test_elements_of_an_unknown_kind_are_one_line(tmp_path: Path, keyword: str) -> None:
    enhanced_ct(chest(3)).save_as(tmp_path / "1.dcm", enforce_file_format=True)
    tag = {"SOPClassUID": b"\x08\0\x16\0UI", "TransferSyntaxUID": b"\x02\0\x10\0UI"}
    old = tag.get(keyword, b"\x00\x52\x29\x92SQ")
    content = (tmp_path / "1.dcm").read_bytes()
    assert content.count(old) == 1
    (tmp_path / "1.dcm").write_bytes(content.replace(old, old[:4] + b"UA"))
    with pytest.raises(UserError, match=r"1\.dcm "):
        read_volume(tmp_path)


def test_tags_that_are_not_used_are_not_judged(tmp_path: Path) -> None:
    paths = write_ct(tmp_path / "s", chest())
    for path in paths:
        content = path.read_bytes()
        assert content.count(b"1.5 ") == 1
        path.write_bytes(content.replace(b"1.5 ", b"a bc"))  # SliceThickness
    assert read_volume(tmp_path / "s").spacing[2] == pytest.approx(DISTANCE)
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(UserError, match='has "a bc" in SliceThickness, expected 1 number'):
        read_volume(tmp_path / "s")


def test_frames_are_named_in_messages(tmp_path: Path) -> None:
    enhanced_ct(chest(3)).save_as(tmp_path / "1.dcm", enforce_file_format=True)
    assert [header.shown for header in read_slice_headers(tmp_path)] == [
        "1.dcm frame 1",
        "1.dcm frame 2",
        "1.dcm frame 3",
    ]
