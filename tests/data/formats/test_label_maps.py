"""Label maps are told from images by what they hold."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
import tifffile
from dicom_helpers import chest, write_ct

from data.formats.discovery import find_volumes
from data.formats.label_maps import is_label_map
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

HU = chest(6, 40, 48)


def organs() -> np.ndarray:
    """Twenty regions in three slices, as a whole-body segmentation has them."""
    rows, columns = np.mgrid[:40, :48]
    labels = 1 + rows // 8 + 5 * (columns // 12)
    labels[:4] = 0
    return np.stack([labels] * 6).astype(np.uint8)


def save(path: Path, voxels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" in path.name:
        nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4)), path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, voxels, photometric="minisblack", compression="deflate")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), useCompression=True)
    return path


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "tif"])
def test_in_every_format(tmp_path: Path, ending: str) -> None:
    assert is_label_map(save(tmp_path / f"a.{ending}", organs()))
    assert is_label_map(save(tmp_path / f"b.{ending}", (HU < -400).astype(np.uint8)))
    assert not is_label_map(save(tmp_path / f"c.{ending}", HU))
    assert not is_label_map(save(tmp_path / f"d.{ending}", (HU + 1024).astype(np.uint16)))


def test_a_stack_of_labels_and_a_series(tmp_path: Path) -> None:
    for index, section in enumerate(organs()):
        save(tmp_path / "labels" / f"{index}.tif", section)
        save(tmp_path / "images" / f"{index}.tif", (HU[index] + 1024).astype(np.uint16))
    assert is_label_map(tmp_path / "labels")
    assert not is_label_map(tmp_path / "images")
    write_ct(tmp_path / "series", HU)
    assert not is_label_map(tmp_path / "series")


def test_what_cannot_be_read_is_left_for_the_reader(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    (tmp_path / "b.nrrd").write_bytes(b"NRRD")
    for path in (tmp_path / "a.nii", tmp_path / "b.nrrd", tmp_path / "none.nii.gz"):
        assert not is_label_map(path)


def test_data_sets_of_others_give_their_ct(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "s1" / "ct.nii.gz", HU)
    for number in range(5):
        save(
            tmp_path / "s1" / "segmentations" / f"rib_{number}.nii.gz", (HU < -400).astype(np.uint8)
        )
    save(tmp_path / "labelsTr" / "lung_001.nii.gz", organs())
    save(tmp_path / "s1" / "ct.seg.nrrd", organs())
    assert find_volumes([str(tmp_path)]) == [tmp_path / "s1" / "ct.nii.gz"]
    told = capsys.readouterr().out
    assert told.startswith(f"left out, label maps and no images: {tmp_path / 'labelsTr'}/lung_001")
    assert "and 3 more" in told
    pattern = str(tmp_path / "s1" / "segmentations" / "*")
    with pytest.raises(UserError, match=r"no volume in .*\* \(masks and label maps are left out\)"):
        find_volumes([pattern])
    named = tmp_path / "s1" / "segmentations" / "rib_0.nii.gz"
    assert find_volumes([str(named)]) == [named]


def test_a_label_map_in_two_formats_is_left_out_whole(tmp_path: Path) -> None:
    save(tmp_path / "ct.nii.gz", HU)
    for name in ("liver.nii", "liver.nii.gz", "aorta.mha"):
        save(tmp_path / name, organs())
    nib.save(nib.Nifti1Pair(organs().transpose(2, 1, 0), np.eye(4)), tmp_path / "rib.hdr")
    assert find_volumes([str(tmp_path)]) == [tmp_path / "ct.nii.gz"]
    assert find_volumes([str(tmp_path / "*")]) == [tmp_path / "ct.nii.gz"]
    by_the_shell = [str(path) for path in sorted(tmp_path.glob("*.nii*"))]
    assert find_volumes(by_the_shell) == [tmp_path / "ct.nii.gz"]


def test_an_image_stays_beside_a_label_map_of_its_name(tmp_path: Path) -> None:
    save(tmp_path / "ct.nii.gz", HU)
    save(tmp_path / "ct.nrrd", organs())
    assert find_volumes([str(tmp_path)]) == [tmp_path / "ct.nii.gz"]
    assert find_volumes([str(tmp_path / "*")]) == [tmp_path / "ct.nii.gz"]
