"""DICOM folders: order by position, one regular series, clear words about anything else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cache_helpers import cache_files
from dicom_helpers import ct_slice

from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

Changes = Mapping[str, object]


def write_slice(
    path: Path,
    pixels: np.ndarray,
    position: tuple[float, float, float] | None,
    changes: Changes | None = None,
    preamble: bool = True,
) -> Path:
    """A CT slice of stored values; `changes` replaces elements, or drops them where None."""
    header = ct_slice(np.zeros(pixels.shape[:2], np.int16))
    header.PixelData = pixels.tobytes()
    header.PixelRepresentation = 1 if pixels.dtype.kind == "i" else 0
    header.SliceThickness, header.PixelSpacing = "2.5", ["0.8", "0.7"]
    del header.ImagePositionPatient
    if position is not None:
        header.ImagePositionPatient = [f"{number:.6g}" for number in position]
    for keyword, value in (changes or {}).items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    if not preamble:  # nor meta header, whose group length says where it ends
        length = pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
        path.write_bytes(path.read_bytes()[144 + length :])
    return path


def pixels_of(index: int, shape: tuple[int, int] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 3000, shape).astype(np.int16)


NAMES = (3, 0, 4, 1, 5, 2)  # file names in an order that is not the slices'


def write_series(
    folder: Path,
    heights: tuple[float, ...] = (-10.0, -7.5, -5.0, -2.5, 0.0, 2.5),
    name: str = "{}.dcm",
    changes: Changes | None = None,
    tilt: float = 0.0,
    preamble: bool = True,
) -> Path:
    for index, height in enumerate(heights):
        number = NAMES[index] if len(heights) <= len(NAMES) else index
        position = (-30.0, 40.0 + tilt * index, height)
        path = folder / name.format(number)
        write_slice(path, pixels_of(index), position, changes, preamble=preamble)
    return folder


@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("name", ["{}.dcm", "IM{}", "slice {}.ima"])
def test_sorted_by_position_with_rescale_and_affine(
    tmp_path: Path, name: str, preamble: bool
) -> None:
    volume = read_volume(write_series(tmp_path / "a series", name=name, preamble=preamble))
    expected = np.stack([pixels_of(index) for index in range(6)]).astype(np.float32) - 1024
    assert volume.array.dtype == np.int16
    assert volume.size == (5, 6, 6)
    np.testing.assert_array_equal([volume.read_slice(index) for index in range(6)], expected)
    affine = np.diag([-0.7, -0.8, 2.5, 1.0])
    affine[:3, 3] = (30, -40, -10)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    assert volume.name == "a series"
    assert volume.spacing_known


def test_coronal_series_runs_along_its_own_normal(tmp_path: Path) -> None:
    changes: dict[str, object] = {"ImageOrientationPatient": "1\\0\\0\\0\\0\\-1"}
    for index in range(3):
        write_slice(tmp_path / "s" / f"{index}", pixels_of(index), (0, 3.0 * index, 9), changes)
    volume = read_volume(tmp_path / "s")
    # Row direction x column direction points to posterior: the order of the positions' y.
    np.testing.assert_array_equal(volume.read_slice(0), pixels_of(0) - np.float32(1024))
    directions = np.array([[-0.7, 0, 0], [0, 0, -3], [0, -0.8, 0]])
    np.testing.assert_allclose(volume.affine[:3, :3], directions)


def test_directions_of_few_digits_leave_the_voxel_size_as_it_is(tmp_path: Path) -> None:
    changes: dict[str, object] = {"ImageOrientationPatient": [0.98, 0.17, 0, -0.17, 0.98, 0]}
    for index in range(3):
        write_slice(tmp_path / "s" / f"{index}", pixels_of(index), (0, 0, 3.0 * index), changes)
    volume = read_volume(tmp_path / "s")
    np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 3.0), rtol=1e-12)


def test_fractional_rescale_becomes_float_and_wide_values_int32(tmp_path: Path) -> None:
    fraction: dict[str, object] = {"RescaleSlope": "0.5"}
    volume = read_volume(write_series(tmp_path / "f", changes=fraction))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.read_slice(0), pixels_of(0) * np.float32(0.5) - 1024)
    wide: dict[str, object] = {"RescaleSlope": "100"}
    volume = read_volume(write_series(tmp_path / "w", changes=wide))
    assert volume.array.dtype == np.int32
    np.testing.assert_array_equal(volume.array[5], pixels_of(5).astype(np.int32) * 100 - 1024)


def test_other_files_are_ignored(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    (folder / "readme.txt").write_text("hello\n" * 50)
    (folder / "empty").touch()
    (folder / ".hidden.dcm").write_text("x")
    (folder / "sub").mkdir()
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(50))
    report = "1.2.840.10008.5.1.4.1.1.88.11"
    write_slice(folder / "report.dcm", pixels_of(0), None, {"SOPClassUID": report})
    broken = (folder / "report.dcm").read_bytes()[:-30]
    (folder / "report.dcm").write_bytes(broken)
    assert read_volume(folder).num_slices == 6


def test_cache_follows_the_content_of_all_files(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    read_volume(folder)
    shutil.copytree(folder, tmp_path / "copy")
    read_volume(tmp_path / "copy")
    assert len(cache_files()) == 1
    write_slice(folder / f"{NAMES[4]}.dcm", pixels_of(99), (-30, 40, 0.0))
    np.testing.assert_array_equal(read_volume(folder).array[4], pixels_of(99) - 1024)
    assert len(cache_files()) == 2


def test_several_series_are_each_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    other: dict[str, object] = {
        "SeriesInstanceUID": "1.2.8",
        "SeriesDescription": "BONE",
    }
    write_series(folder, (0.0, 1.0, 2.0), "other{}.dcm", other)
    expected = (
        r's holds 2 DICOM series: "LUNG 1.0" \(6 slices, UID ..1\.2\.7\), '
        r'"BONE" \(3 slices, UID ..1\.2\.8\): choose one by giving a folder that holds only'
    )
    with pytest.raises(UserError, match=expected) as caught:
        read_volume(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", range(1, 5))
def test_missing_slice_names_where(tmp_path: Path, missing: int) -> None:
    heights = [-10.0, -7.5, -5.0, -2.5, 0.0, 2.5]
    at, after = heights[missing - 1], heights[missing + 1]
    del heights[missing]
    folder = write_series(tmp_path / "s", tuple(heights))
    where = rf"s: slices are missing between {at:.2f} and {after:.2f} mm .* 5\.000 mm apart"
    with pytest.raises(UserError, match=where):
        read_volume(folder)
    assert cache_files() == []


def test_missing_slice_in_a_series_of_three(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing between 1\.00 and 3\.00 mm"):
        read_volume(write_series(tmp_path / "s", (0.0, 1.0, 3.0)))


def test_missing_slice_at_micro_ct_distances(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="slices are missing"):
        read_volume(write_series(tmp_path / "s", (0.0, 0.01, 0.02, 0.04, 0.05)))


def test_small_deviations_pass_and_larger_ones_do_not(tmp_path: Path) -> None:
    # Positions rounded to 0.01 mm, as scanners write them.
    rounded = tuple(round(0.625 * index, 2) for index in range(6))
    volume = read_volume(write_series(tmp_path / "good", rounded))
    assert volume.spacing[2] == pytest.approx(rounded[-1] / 5)
    with pytest.raises(UserError, match=r"distances vary between 2\.50 and 5\.10 mm"):
        read_volume(write_series(tmp_path / "bad", (0.0, 2.5, 5.1, 7.6)))


def test_duplicate_positions(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", (0.0, 2.5, 2.5, 5.0))
    with pytest.raises(UserError, match=r"s holds two slices at 2\.50 mm \(.*\.dcm and .*\.dcm\)"):
        read_volume(folder)
    with pytest.raises(UserError, match="two slices at"):
        read_volume(write_series(tmp_path / "all", (1.0, 1.0, 1.0)))


def with_acquisitions(folder: Path, numbers: list[str], heights: list[float]) -> Path:
    for index, (number, height) in enumerate(zip(numbers, heights, strict=True)):
        write_slice(
            folder / f"{index}.dcm",
            pixels_of(index),
            (-30.0, 40.0, height),
            {"AcquisitionNumber": number},
        )
    return folder


def test_two_acquisitions_in_one_place_or_between_each_other_are_named(tmp_path: Path) -> None:
    same = with_acquisitions(tmp_path / "a", list("112"), [0.0, 1.0, 1.0])
    with pytest.raises(
        UserError, match=r"2 acquisitions .* lie in one place \(1: 2 slices, 2: 1 slices; Acq"
    ):
        read_volume(same)
    mixed = with_acquisitions(tmp_path / "b", list("1212"), [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(UserError, match=r"acquisitions or time points whose slices alternate"):
        read_volume(mixed)
    # One above the other they are one scan, and so are slices that were each acquired alone.
    for name, numbers in (("c", "1122"), ("d", "3142")):
        folder = with_acquisitions(tmp_path / name, list(numbers), [0.0, 1.0, 2.0, 3.0])
        assert read_volume(folder).num_slices == 4


def test_time_points_in_one_series_are_named(tmp_path: Path) -> None:
    for index in range(4):
        write_slice(
            tmp_path / f"{index}.dcm",
            pixels_of(index),
            (0.0, 0.0, float(index // 2)),
            {"TemporalPositionIdentifier": str(index % 2 + 1)},
        )
    with pytest.raises(UserError, match=r"2 acquisitions or time .* \(1 1: 2 slices, 1 2: 2"):
        read_volume(tmp_path)


def test_many_series_are_one_short_line(tmp_path: Path) -> None:
    for index in range(40):
        changes: dict[str, object] = {
            "SeriesInstanceUID": f"1.2.840.113619.2.55.3.604688119.929.1234567890.{index}",
            "SeriesDescription": f"a long description of the series number {index}",
        }
        write_slice(tmp_path / "s" / f"{index}.dcm", pixels_of(0), (0.0, 0.0, 0.0), changes)
    with pytest.raises(UserError, match=r"40 DICOM series: .* and 37 more: choose one") as caught:
        read_volume(tmp_path / "s")
    assert len(str(caught.value).replace(str(tmp_path), "")) <= 300


def test_gantry_tilt(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", tilt=0.67)
    with pytest.raises(
        UserError, match=r"s: slices are shifted sideways by 0\.670 mm .* 15\.0 deg"
    ):
        read_volume(folder)


def test_slices_of_different_size_spacing_or_orientation(tmp_path: Path) -> None:
    for name, shape, changes in (
        ("size", (7, 5), {}),
        ("pixel spacing", (6, 5), {"PixelSpacing": "0.5\\0.5"}),
        ("orientation", (6, 5), {"ImageOrientationPatient": "1\\0\\0\\0\\0\\-1"}),
    ):
        folder = write_series(tmp_path / name)
        write_slice(folder / "scout.dcm", pixels_of(9, shape), (-30, 40, 5.0), changes)
        with pytest.raises(UserError, match=rf"scout\.dcm differ in {name}"):
            read_volume(folder)


def test_colour_and_multi_frame_files(tmp_path: Path) -> None:
    colour: dict[str, object] = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "RescaleIntercept": None,
        "RescaleSlope": None,
    }
    write_slice(tmp_path / "c" / "1.dcm", np.zeros((6, 5, 3), np.uint8), (0, 0, 0), colour)
    with pytest.raises(UserError, match=r"1\.dcm is in colour"):
        read_volume(tmp_path / "c")
    frames: dict[str, object] = {
        "NumberOfFrames": "4",
        "Rows": 6,
        "Columns": 5,
    }
    frames["SOPClassUID"] = "1.2.840.10008.5.1.4.1.1.7.3"
    write_slice(tmp_path / "m" / "1.dcm", np.zeros((24, 5), np.uint16), (0, 0, 0), frames)
    with pytest.raises(UserError, match=r"1\.dcm holds 4 frames without a place for each"):
        read_volume(tmp_path / "m")


def test_no_position(tmp_path: Path) -> None:
    for index in range(2):
        write_slice(tmp_path / "s" / f"{index}.dcm", pixels_of(index), None)
    with pytest.raises(UserError, match=r"0\.dcm states no ImagePositionPatient"):
        read_volume(tmp_path / "s")


def test_odd_numbers_in_a_tag(tmp_path: Path) -> None:
    changes: dict[str, object] = {"PixelSpacing": "0.5"}
    with pytest.raises(UserError, match=r'\.dcm has "0\.5" in PixelSpacing, expected 2'):
        read_volume(write_series(tmp_path / "s", changes=changes))


def test_one_slice_takes_its_thickness(tmp_path: Path) -> None:
    volume = read_volume(write_series(tmp_path / "s", (4.0,)))
    assert volume.size == (5, 6, 1)
    assert volume.spacing == pytest.approx((0.7, 0.8, 2.5))
    assert volume.spacing_known
    unknown: dict[str, object] = {"SliceThickness": None, "PixelSpacing": None}
    volume = read_volume(write_series(tmp_path / "u", (4.0,), changes=unknown))
    assert volume.spacing == (1.0, 1.0, 1.0)
    assert not volume.spacing_known


@pytest.mark.parametrize("cut", [2, 20, 60])
def test_truncated_slice_is_named(tmp_path: Path, cut: int) -> None:
    folder = write_series(tmp_path / "s")
    path = folder / "2.dcm"
    path.write_bytes(path.read_bytes()[:-cut])
    told = rf"2\.dcm is truncated: it holds {60 - cut} bytes of pixels, its header promises 60"
    with pytest.raises(UserError, match=told):
        read_volume(folder)
    assert cache_files() == []


@pytest.mark.parametrize("name", ["3.dcm", "IM3"])
def test_a_single_slice_points_to_its_folder(tmp_path: Path, name: str) -> None:
    folder = write_series(tmp_path / "a series", name=name.replace("3", "{}"))
    with pytest.raises(UserError, match=rf"{name} is one slice .* give its folder, .*a series"):
        read_volume(folder / name)


def test_folder_without_slices(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.txt").write_text("x")
    with pytest.raises(UserError, match="s holds no DICOM slice"):
        read_volume(tmp_path / "s")


@pytest.mark.shared
def test_real_series_equals_the_cropped_volume(shared_data: Path) -> None:
    clinical = shared_data / "clinical"
    series = read_volume(clinical / "LIDC-IDRI-0001_dicom_24slices")
    box = read_volume(clinical / "LIDC-IDRI-0001_lungbox.nii.gz")
    np.testing.assert_allclose(series.affine[:3, :3], box.affine[:3, :3], atol=1e-6)
    # Index of the box's first voxel in the series and, z, of the series' first slice in the box.
    exact = np.linalg.inv(series.affine) @ box.affine[:, 3]
    x, y, z = np.rint(exact[:3]).astype(int)
    np.testing.assert_allclose(exact[:3], (x, y, z), atol=1e-3)
    columns, rows, slices = box.size
    shared_slices = range(max(0, z), min(series.num_slices, z + slices))
    assert len(shared_slices) == 24
    for index in shared_slices:
        cropped = np.clip(series.read_slice(index), -1024, 3071)[y : y + rows, x : x + columns]
        np.testing.assert_array_equal(cropped, box.read_slice(index - z))
