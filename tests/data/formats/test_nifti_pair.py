"""NIfTI in two files, .hdr and .img."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from dicom_helpers import chest, write_ct

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

VOXELS = np.random.default_rng(0).integers(-1000, 500, (5, 6, 4)).astype(np.int16)
AFFINE = np.array([[-0.7, 0, 0, 20], [0, -0.7, 0, 30], [0, 0, 1.5, -100], [0, 0, 0, 1.0]])


def write(folder: Path, packed: bool = False, voxels: np.ndarray = VOXELS) -> tuple[Path, Path]:
    nib.save(nib.Nifti1Pair(voxels, AFFINE), folder / "ct.hdr")
    header, image = folder / "ct.hdr", folder / "ct.img"
    if packed:
        for path in (header, image):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        return folder / "ct.hdr.gz", folder / "ct.img.gz"
    return header, image


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("named", [0, 1])
def test_by_the_name_of_either_file(tmp_path: Path, packed: bool, named: int) -> None:
    files = write(tmp_path, packed)
    volume = read_volume(files[named])
    np.testing.assert_array_equal(volume.array.T, VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert volume.name == "ct"
    judge = nib.Nifti1Pair.from_filename(files[0])
    np.testing.assert_allclose(volume.affine, judge.affine, atol=1e-6)
    np.testing.assert_array_equal(volume.array.T, np.asanyarray(judge.dataobj))
    if not packed:
        np.testing.assert_array_equal(
            volume.array, sitk.GetArrayFromImage(sitk.ReadImage(str(files[0])))
        )
    assert find_volumes([str(tmp_path)]) == [files[0]]


def test_floats_are_looked_at_for_nan(tmp_path: Path) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[2, 2, 2] = np.nan
    for packed in (False, True):
        header, image = write(tmp_path, packed, voxels)
        with pytest.raises(UserError, match="1 NaN or infinite voxels in slice 2"):
            read_volume(header)
        header.unlink()
        image.unlink()


def test_one_of_the_two_alone(tmp_path: Path) -> None:
    header, image = write(tmp_path)
    image.unlink()
    with pytest.raises(UserError, match=r"ct\.hdr is one of two files, and ct\.img is not beside"):
        read_volume(header)


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_that_was_cut_off(tmp_path: Path, packed: bool) -> None:
    header, image = write(tmp_path, packed)
    image.write_bytes(image.read_bytes()[:-60])
    with pytest.raises(UserError, match="truncated"):
        read_volume(header)


def test_analyze_and_other_headers_are_refused(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(VOXELS, AFFINE), tmp_path / "a.hdr")
    (tmp_path / "b.hdr").write_text("!INTERFILE :=\n" * 40)
    (tmp_path / "b.img").write_bytes(bytes(240))
    for name in ("a.hdr", "b.hdr"):
        with pytest.raises(UserError, match=rf"{name} is no NIfTI header \(ANALYZE states neither"):
            read_volume(tmp_path / name)


def test_names_that_differ_in_letters_alone_are_two_pairs(tmp_path: Path) -> None:
    write(tmp_path)
    for path in (tmp_path / "ct.hdr", tmp_path / "ct.img"):
        path.rename(path.with_name(path.name.replace("ct", "CT")))
    other = VOXELS + np.int16(1)
    write(tmp_path, voxels=other)
    np.testing.assert_array_equal(read_volume(tmp_path / "ct.hdr").array.T, other)
    np.testing.assert_array_equal(read_volume(tmp_path / "CT.img").array.T, VOXELS)
    (tmp_path / "ct.img.gz").touch()
    with pytest.raises(UserError, match=r"ct\.img is there as ct\.img, ct\.img\.gz: keep one"):
        read_volume(tmp_path / "ct.hdr")


def test_other_files_of_these_endings_are_no_volumes(tmp_path: Path) -> None:
    (tmp_path / "envi.hdr").write_text("ENVI\nsamples = 5\n" * 30)
    (tmp_path / "envi.img").write_bytes(bytes(240))
    values = chest()
    write_ct(tmp_path / "series", values, name="IM{:04d}.img")
    assert find_volumes([str(tmp_path)]) == [tmp_path / "series"]
    np.testing.assert_array_equal(read_volume(tmp_path / "series").array, values)
