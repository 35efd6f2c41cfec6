"""The lung mask that the user gave is the one that is taken, whatever its name and format."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
import tifffile
from dicom_helpers import ct_slice, enhanced_ct, write_ct
from pydicom.uid import SegmentationStorage

from data.formats.readers import read_volume
from data.lung_mask import load_lung_mask
from data.volumes.mask_files import COMPUTED, find_mask, likely_masks, mask_in_words
from data.volumes.names import MASK_WORDS, split_mask_name
from data.volumes.volume import Volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

SHAPE = (3, 24, 20)


def own_mask() -> np.ndarray:
    mask: np.ndarray = np.zeros(SHAPE, np.uint8)
    mask[:, 4:9, 3:7] = 1
    return mask


def write(path: Path, voxels: np.ndarray) -> Path:
    """By ITK, in the format of its name; TIFF, which ITK cannot place, by tifffile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, voxels, photometric="minisblack")
    else:
        # ITK knows endings in lower case alone.
        made = path.with_name(path.name.lower())
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(made))
        made.rename(path)
    return path


def case(folder: Path, name: str = "ct.nii.gz") -> Volume:
    return read_volume(write(folder / name, np.full(SHAPE, -900, np.int16)))


@pytest.mark.parametrize(
    "name",
    [
        "ct_mask.nii.gz", "ct_mask.nii", "ct_mask.nrrd", "ct_mask.mha", "ct_mask.mhd",
        "ct_Mask.nii.gz", "CT_MASK.NII.GZ", "ct-mask.nii", "ct.mask.nii", "ct mask.nii",
        "ct_lung_mask.nii", "ct_lungmask.mha", "ct_seg.nii.gz", "ct.seg.nrrd", "ct-label.nrrd",
        "ct_labels.nii", "ct_segmentation.nii.gz", "mask.nii.gz", "lung_mask.nrrd",
    ],
)  # fmt: skip
def test_a_mask_beside_the_ct_by_any_usual_name(tmp_path: Path, name: str) -> None:
    volume = case(tmp_path)
    path = write(tmp_path / name, own_mask())
    assert mask_in_words(volume, None) == str(path)
    np.testing.assert_array_equal(load_lung_mask(volume), own_mask())


@pytest.mark.parametrize(
    "name", ["ct.nii.gz", "ct.mha", "CT.nrrd", "ct_mask.nii", "ct.seg.nrrd", "ct.tif"]
)
def test_a_mask_folder_may_name_masks_as_their_ct(tmp_path: Path, name: str) -> None:
    volume = read_volume(case(tmp_path).source, tiff_spacing=(1, 1, 1))
    write(tmp_path / "masks" / "other.nii.gz", own_mask())
    path = write(tmp_path / "masks" / name, own_mask())
    assert find_mask(volume, tmp_path / "masks") == path


def test_channel_numbers_of_nnu_net_are_no_part_of_the_case(tmp_path: Path) -> None:
    volume = case(tmp_path / "imagesTr", "lung_001_0000.nii.gz")
    path = write(tmp_path / "labelsTr" / "lung_001.nii.gz", own_mask())
    assert find_mask(volume, tmp_path / "labelsTr") == path


def test_a_mask_folder_without_the_case_says_what_it_holds(tmp_path: Path) -> None:
    volume = case(tmp_path)
    write(tmp_path / "ct_mask.nii.gz", own_mask())  # beside the CT: not what was asked for
    for index in range(5):
        write(tmp_path / "masks" / f"p{index}.nii.gz", own_mask())
    expected = (
        r"masks holds no mask of ct: expected ct_mask\.nii\.gz or ct\.nii\.gz, got p0\.nii\.gz, "
        r"p1\.nii\.gz, p2\.nii\.gz and 2 more"
    )
    with pytest.raises(UserError, match=expected):
        load_lung_mask(volume, tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="got no volume"):
        load_lung_mask(volume, tmp_path / "empty")


def test_the_lungs_own_mask_comes_before_others_and_two_alike_are_refused(tmp_path: Path) -> None:
    volume = case(tmp_path)
    for name in ("ct_seg.nii", "ct_mask.nii", "ct_lung_mask.nii"):
        path = write(tmp_path / name, own_mask())
        assert find_mask(volume, None) == path
    write(tmp_path / "ct_lung_mask.mha", own_mask())
    with pytest.raises(
        UserError, match=r"ct has several lung masks, .*ct_lung_mask\.mha and ct_lu"
    ):
        find_mask(volume, None)


def test_a_nameless_mask_is_nobodys_where_there_are_two_cts(tmp_path: Path) -> None:
    volume = case(tmp_path)
    write(tmp_path / "mask.nii.gz", own_mask())
    case(tmp_path, "another.nii.gz")
    assert mask_in_words(volume, None) == COMPUTED


def test_masks_in_two_files_and_in_a_folder(tmp_path: Path) -> None:
    volume = case(tmp_path)
    nib.save(nib.Nifti1Pair(own_mask().transpose(2, 1, 0), volume.affine), tmp_path / "ct_mask.hdr")
    assert find_mask(volume, None) == tmp_path / "ct_mask.hdr"
    np.testing.assert_array_equal(load_lung_mask(volume), own_mask())
    for path in tmp_path.glob("ct_mask*"):
        path.unlink()
    for index, section in enumerate(own_mask()):
        write(tmp_path / "ct_mask" / f"s{index}.tif", section)
    assert find_mask(volume, None) == tmp_path / "ct_mask"
    np.testing.assert_array_equal(load_lung_mask(volume), own_mask())


def test_a_mask_in_a_store(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    volume = case(tmp_path)
    for kind in (np.int16, np.uint8):
        array = zarr.open(str(tmp_path / "ct_mask.zarr"), mode="w", shape=SHAPE, dtype=kind)
        array[:] = own_mask()
        mask = load_lung_mask(volume)
        assert isinstance(mask, np.memmap)
        np.testing.assert_array_equal(mask, own_mask())


def test_masks_of_one_header_and_other_voxels_are_two(tmp_path: Path) -> None:
    found = []
    for name, shift in (("a", 0), ("b", 2)):
        volume = case(tmp_path / name)
        mask = np.roll(own_mask(), shift, axis=1).astype(np.int16)
        write(tmp_path / name / "ct_mask.mhd", mask)
        np.testing.assert_array_equal(load_lung_mask(volume), mask)
        found.append((tmp_path / name / "ct_mask.mhd").read_bytes())
    assert found[0] == found[1]


def test_a_nameless_mask_is_nobodys_beside_another_patients_folder(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        write_ct(tmp_path / name, np.full(SHAPE, -900, np.int16))
    write(tmp_path / "mask.nii.gz", own_mask())
    assert find_mask(read_volume(tmp_path / "p1"), None) is None
    alone = case(tmp_path / "p3")
    write(tmp_path / "p3" / "labels.nii.gz", own_mask())
    assert find_mask(alone, None) is None  # whose labels nobody says


def test_masks_of_a_dicom_series_lie_beside_or_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct(tmp_path / "series", np.full(SHAPE, -900, np.int16))
    volume = read_volume(tmp_path / "series")
    for name in ("series_mask.nii.gz", "series/series_mask.nii.gz", "series/mask.nii.gz"):
        path = write(tmp_path / name, own_mask())
        assert find_mask(volume, None) == path
        path.unlink()
    path = write(tmp_path / "series_mask.nii.gz", own_mask())
    monkeypatch.chdir(tmp_path / "series")
    assert find_mask(read_volume("."), None) == path
    shutil.rmtree(tmp_path / "series")


def test_no_mask_is_said_to_be_computed(tmp_path: Path) -> None:
    volume = case(tmp_path)
    for name in ("other_mask.nii.gz", "ct_lungs.nii", "ctx_mask.nii", "ct_mask.txt"):
        (tmp_path / name).touch()
    assert find_mask(volume, None) is None
    assert mask_in_words(volume, None) == COMPUTED


def test_a_ct_is_not_its_own_mask(tmp_path: Path) -> None:
    volume = case(tmp_path)
    with pytest.raises(UserError, match="holds no mask of ct"):
        find_mask(volume, tmp_path)


def test_a_mask_beside_a_link_to_the_ct(tmp_path: Path) -> None:
    stored = write(tmp_path / "store" / "blob123.nii.gz", np.full(SHAPE, -900, np.int16))
    (tmp_path / "ct.nii.gz").symlink_to(stored)
    volume = read_volume(tmp_path / "ct.nii.gz")
    path = write(tmp_path / "ct_mask.nii.gz", own_mask())
    assert find_mask(volume, None) == path


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct_mask.nrrd"])
def test_a_folder_of_masks_beside_the_ct(tmp_path: Path, name: str) -> None:
    volume = case(tmp_path)
    path = write(tmp_path / "masks" / name, own_mask())
    write(tmp_path / "masks" / "other.nii.gz", own_mask())
    assert find_mask(volume, None) == path


def test_a_folder_of_slices_is_a_mask_by_the_name_of_the_ct(tmp_path: Path) -> None:
    write_ct(tmp_path / "ct", np.full(SHAPE, -900, np.int16))
    write_ct(tmp_path / "masks" / "ct", own_mask().astype(np.int16))
    volume = read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(load_lung_mask(volume, tmp_path / "masks"), own_mask())


@pytest.mark.parametrize("name", ["ct", "ct_mask"])
def test_a_mask_file_comes_before_a_folder_of_its_name(tmp_path: Path, name: str) -> None:
    volume = case(tmp_path)
    path = write(tmp_path / "m" / f"{name}.nii.gz", own_mask())
    (tmp_path / "m" / name).mkdir()
    (tmp_path / "m" / name / "preview.png").touch()
    assert find_mask(volume, tmp_path / "m") == path
    write_ct(tmp_path / "m" / name, np.full(SHAPE, -900, np.int16))
    assert find_mask(volume, tmp_path / "m") == path


def test_a_mask_folder_that_is_a_file(tmp_path: Path) -> None:
    volume = case(tmp_path)
    with pytest.raises(UserError, match=r"ct\.nii\.gz is a file: give the folder"):
        find_mask(volume, tmp_path / "ct.nii.gz")


def test_a_mask_that_cannot_be_read_is_named_as_one(tmp_path: Path) -> None:
    volume = case(tmp_path)
    (tmp_path / "ct_mask.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"lung mask of ct: .*ct_mask\.nii\.gz"):
        load_lung_mask(volume)


@pytest.mark.parametrize(
    ("name", "likely"),
    [("mask_ct.nii", True), ("ct_lungs.nrrd", True), ("ct_mask_v2.nii", True),
     ("ct_lungbox.nii", False), ("other_mask.nii", False)],
)  # fmt: skip
def test_files_that_are_nearly_named_as_masks(tmp_path: Path, name: str, likely: bool) -> None:
    volume = case(tmp_path)
    write(tmp_path / name, own_mask())
    assert find_mask(volume, None) is None
    assert likely_masks(volume) == [name] * likely


def segmentation(path: Path) -> Path:
    header = ct_slice(np.zeros((4, 4), np.int16))
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "name",
    ["s/mask.dcm", "s/s_seg.dcm", "s/seg.dcm", "s/lung_mask.dcm", "s/1_seg.dcm", "s_seg.dcm"],
)
def test_a_dicom_segmentation_near_the_ct_is_noted_and_not_taken(tmp_path: Path, name: str) -> None:
    write_ct(tmp_path / "s", np.full(SHAPE, -900, np.int16))
    path = segmentation(tmp_path / name)
    volume = read_volume(tmp_path / "s")
    assert find_mask(volume, None) is None
    assert likely_masks(volume) == [path.name]
    mask = write(tmp_path / "s" / "s_mask.nii.gz", own_mask())
    assert find_mask(volume, None) == mask
    mask.unlink()
    (tmp_path / "m").mkdir()
    path.rename(tmp_path / "m" / "s_mask.dcm")
    assert find_mask(volume, tmp_path / "m") == tmp_path / "m" / "s_mask.dcm"  # refused as such


def test_a_mask_in_one_dicom_file_of_many_frames(tmp_path: Path) -> None:
    write_ct(tmp_path / "s", np.full(SHAPE, -900, np.int16))
    enhanced_ct(own_mask().astype(np.int16)).save_as(
        tmp_path / "s_mask.dcm", enforce_file_format=True
    )
    assert find_mask(read_volume(tmp_path / "s"), None) == tmp_path / "s_mask.dcm"


def test_slices_of_the_ct_are_not_noted(tmp_path: Path) -> None:
    write_ct(tmp_path / "s", np.full(SHAPE, -900, np.int16))
    for path in (tmp_path / "s").iterdir():
        path.rename(path.with_name(f"LUNG_{path.stem}.dcm"))
    assert likely_masks(read_volume(tmp_path / "s")) == []
    for index, section in enumerate(own_mask()):
        write(tmp_path / "t" / f"lung_{index}.tif", section)
    assert likely_masks(read_volume(tmp_path / "t")) == []


def test_every_name_of_a_mask_has_a_rank() -> None:
    for name in ("lungsegmentation", "lungs_segmentation", "lung-mask", "lungseg", "label map"):
        assert split_mask_name(f"ct_{name}.nii")[1] in MASK_WORDS


def test_folders_beside_a_ct_are_opened_where_their_name_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = case(tmp_path)
    for name in ("lost+found", "other_lungs"):
        (tmp_path / name).mkdir()
    listed: list[Path] = []
    listing = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        listed.append(path)
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert find_mask(volume, None) is None
    assert listed == [tmp_path]
    assert likely_masks(volume) == []
    assert listed == [tmp_path] * 2
    with pytest.raises(UserError, match=r"holds no mask of ct: .* got ct\.nii\.gz"):
        find_mask(volume, tmp_path)  # all is opened to say what is there
    path = write(tmp_path / "mask.nii.gz", own_mask())
    assert find_mask(volume, None) == path


@pytest.mark.parametrize("case", ["two\nlines", "01_lung", "left lungs", "lung"])
def test_a_case_whose_name_ends_with_lung_has_its_mask(tmp_path: Path, case: str) -> None:
    ct, mask = tmp_path / f"{case}.nii.gz", tmp_path / f"{case}_mask.nii.gz"
    for path in (ct, mask):
        path.touch()
    volume = Volume(np.zeros((1, 1, 1), np.int16), np.eye(4), str(ct))
    assert find_mask(volume, None) == mask
    assert find_mask(volume, tmp_path) == mask


def test_of_two_cases_the_longer_name_has_the_mask_that_may_be_of_both(tmp_path: Path) -> None:
    for name in ("ct.nii.gz", "ct_lung.nii.gz", "ct_lung_mask.nii.gz"):
        (tmp_path / name).touch()

    def found(case: str) -> Path | None:
        source = str(tmp_path / f"{case}.nii.gz")
        return find_mask(Volume(np.zeros((1, 1, 1), np.int16), np.eye(4), source), None)

    assert found("ct_lung") == tmp_path / "ct_lung_mask.nii.gz"
    assert found("ct") is None
    (tmp_path / "ct_lung.nii.gz").unlink()
    assert found("ct") == tmp_path / "ct_lung_mask.nii.gz"
