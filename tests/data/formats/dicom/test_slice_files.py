"""Which files hold slices, and which series are one scan: what is told, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_helpers import chest, ct_slice, enhanced_ct, write_ct
from pydicom.dataset import Dataset
from pydicom.uid import UID

from data.formats.dicom.slice_files import holds_slices, read_slice_headers, storage_classes
from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

SEGMENTATION = UID("1.2.840.10008.5.1.4.1.1.66.4")


def segmentation(path: Path) -> Path:
    header = ct_slice(np.zeros((4, 4), np.int16))
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = SEGMENTATION
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def of_one_slice(index: int, **changes: object) -> Callable[[Dataset, int], None]:
    """An edit of slice `index`: None takes an element away."""

    def edit(header: Dataset, number: int) -> None:
        if number == index:
            for keyword, value in changes.items():
                if value is None:
                    delattr(header, keyword)
                else:
                    setattr(header, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"RescaleSlope": None, "RescaleIntercept": None}, "differ in whether they state a resca"),
        ({"PatientID": "8"}, "IM0000 and IM0002 differ in patient"),
        ({"PixelSpacing": [-0.7, 0.6]}, "states PixelSpacing -0.7 and 0.6 mm, expected sizes abo"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 0.5, 0]}, "differ in orientation"),
    ],
)
def test_slices_that_are_not_of_one_scan(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    write_ct(tmp_path / "s", chest(), of_one_slice(2, **changes))
    with pytest.raises(UserError, match=told):
        read_volume(tmp_path / "s")


def test_a_rescale_that_changes_nothing_may_be_left_out(tmp_path: Path) -> None:
    def edit(header: Dataset, index: int) -> None:
        header.RescaleIntercept = 0
        if index == 1:
            del header.RescaleIntercept, header.RescaleSlope

    write_ct(tmp_path / "s", chest(), edit)
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, chest() + 1024)


@pytest.mark.parametrize("directions", [[2, 0, 0, 0, 0.5, 0], [1, 0, 0, 0.1, 1, 0]])
def test_directions_that_are_none(tmp_path: Path, directions: list[float]) -> None:
    def edit(header: Dataset, index: int) -> None:
        header.ImageOrientationPatient = directions

    write_ct(tmp_path / "s", chest(), edit)
    with pytest.raises(UserError, match="that are not of length 1 at right angles"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("keyword", ["ImageOrientationPatient", "RescaleIntercept"])
def test_what_is_assumed_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keyword: str
) -> None:
    def edit(header: Dataset, index: int) -> None:
        delattr(header, keyword)

    write_ct(tmp_path / "s", chest(), edit)
    read_volume(tmp_path / "s")
    read_volume(tmp_path / "s")
    told = capsys.readouterr().err
    assert told.count(f"4 of 4 DICOM slices of {tmp_path / 's'} state no {keyword}: ") == 1


def test_acquisitions_are_told_apart_by_their_kernel(tmp_path: Path) -> None:
    def edit(header: Dataset, index: int) -> None:
        header.ConvolutionKernel = ("SOFT", "LUNG")[index % 2]

    write_ct(tmp_path / "s", chest(), edit)
    with pytest.raises(UserError, match="2 acquisitions or time points whose slices alternate"):
        read_volume(tmp_path / "s")


def test_a_file_of_many_frames_may_be_named(tmp_path: Path) -> None:
    values = chest()
    for series, name in (("1.2.7", "a"), ("1.2.8", "b")):
        header = enhanced_ct(values)
        header.SeriesInstanceUID = series
        header.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    (path,) = find_volumes([str(tmp_path / "b.dcm")])
    volume = read_volume(path)
    assert volume.name == "b"
    np.testing.assert_array_equal(volume.array, values)
    with pytest.raises(UserError, match="holds 2 DICOM series"):
        read_volume(tmp_path)


def test_frames_without_a_description_of_their_own(tmp_path: Path) -> None:
    header = enhanced_ct(chest())
    header.NumberOfFrames = 3
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match="states 3 frames and describes 4"):
        read_volume(tmp_path)


def test_two_frames_in_one_place_are_named(tmp_path: Path) -> None:
    header = enhanced_ct(chest())
    groups = header.PerFrameFunctionalGroupsSequence
    groups[2].PlanePositionSequence = groups[1].PlanePositionSequence
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match=r"two slices at .* \(a.dcm frame 2 and a.dcm frame 3\)"):
        read_volume(tmp_path)


def test_a_folder_of_other_objects_is_no_volume(tmp_path: Path) -> None:
    write_ct(tmp_path / "scans" / "ct", chest())
    segmentation(tmp_path / "scans" / "seg" / "1.dcm")
    assert not holds_slices(tmp_path / "scans" / "seg")
    assert find_volumes([str(tmp_path / "scans")]) == [tmp_path / "scans" / "ct"]
    assert storage_classes(tmp_path / "scans" / "seg") == ["Segmentation Storage"]
    with pytest.raises(UserError, match="no DICOM slice, got Segmentation Storage"):
        read_volume(tmp_path / "scans" / "seg")


@pytest.mark.parametrize("group", [0x7FE1, 0x7FE3, 0x9001])
def test_makers_own_elements_may_stand_behind_the_pixels(tmp_path: Path, group: int) -> None:
    def edit(header: Dataset, index: int) -> None:
        header.add_new((group, 0x0010), "LO", "MAKER")
        header.add_new((group, 0x1001), "OB", b"1234")

    write_ct(tmp_path / "s", chest(), edit)
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, chest())


def test_a_file_may_begin_with_its_meta_elements(tmp_path: Path) -> None:
    for path in write_ct(tmp_path / "s", chest()):
        path.write_bytes(path.read_bytes()[132:])
    assert len(read_slice_headers(tmp_path / "s")) == 4
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, chest())


@pytest.mark.parametrize("storage", ["1.2.840.10p08.5.1.4.1.1.2", "1.2.840.10008.5.1.1e308.1."])
def test_a_slice_whose_header_is_damaged_is_not_another_object(
    tmp_path: Path, storage: str
) -> None:
    last = write_ct(tmp_path / "s", chest())[-1]
    header = Dataset()
    header.file_meta = ct_slice(chest()[0]).file_meta
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = UID(storage)
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    header.save_as(last, enforce_file_format=True)
    with pytest.raises(UserError, match="IM0003 states no Columns, it is cut off or no image"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize(
    "storage", ["1.3.12.2.1107.5.9.1", "1.2.840.0113.1", "1.2.840.10008.5.1.4.1.1.201.99"]
)
@pytest.mark.parametrize("instance", ["1.2.3", None])
def test_an_object_of_a_class_that_is_not_known_may_lie_beside_slices(
    tmp_path: Path, storage: str, instance: str | None
) -> None:
    write_ct(tmp_path / "s", chest())
    header = Dataset()
    header.file_meta = ct_slice(chest()[0]).file_meta
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = UID(storage)
    header.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    if instance is not None:
        header.SOPInstanceUID = UID(instance)
    header.save_as(tmp_path / "s" / "x.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "s").array, chest())
