"""Headers that break the standard, and are written: nibabel and ITK are the judges."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

VOXELS = np.random.default_rng(0).integers(-1000, 500, (5, 6, 4)).astype(np.int16)
AFFINE = np.array([[-0.7, 0, 0, 20], [0, -0.7, 0, 30], [0, 0, 1.5, -100], [0, 0, 0, 1.0]])
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
Fields = Mapping[str, object]


def write(path: Path, fields: Fields, forms: tuple[int, int] = (1, 1)) -> Path:
    """Write a volume with (qform code, sform code), then change fields of its header."""
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.set_qform(AFFINE, forms[0])
    image.set_sform(AFFINE, forms[1])
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    header = np.ndarray((), nib.Nifti1Header.template_dtype, content)
    for name, value in fields.items():
        if isinstance(value, dict):
            for index, number in value.items():
                header[name][index] = number
        else:
            header[name] = value
    path.write_bytes(content)
    return path


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (x, y, z) and RAS+ affine."""
    image = nib.Nifti1Image.from_filename(path)
    return np.asanyarray(image.dataobj).squeeze(), image.affine


def by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    dimension = image.GetDimension()
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (dimension, dimension))[:3, :3]
    affine[:3, :3] = directions * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image).squeeze().T, LPS_TO_RAS @ affine


def by_us(path: Path) -> tuple[np.ndarray, np.ndarray]:
    volume = read_volume(path)
    slices = np.stack([volume.read_slice(index) for index in range(volume.num_slices)])
    return slices.squeeze().T, volume.affine


@pytest.mark.parametrize("forms", [(1, 1), (1, 0), (0, 1)])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pixdim": {0: 0}},
        {"dim": {4: 0}},
        {"dim": {0: 5, 4: 1, 5: 1}},
        {"scl_slope": np.nan, "scl_inter": np.nan},
        {"scl_slope": 2, "scl_inter": -1},
        {"bitpix": 8},
        {"xyzt_units": 0},
        {"sizeof_hdr": 0},
        {"magic": b"ni1"},
        {"intent_code": 1007},
        {"vox_offset": 352},
        {"descrip": b"\xff" * 80},
    ],
)
def test_what_nibabel_and_itk_agree_on_is_read_so(
    tmp_path: Path, fields: Fields, forms: tuple[int, int]
) -> None:
    path = write(tmp_path / "a.nii", fields, forms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (voxels, affine), (others, itk_affine) = by_nibabel(path), by_itk(path)
    np.testing.assert_allclose(affine, itk_affine, atol=1e-4)
    np.testing.assert_array_equal(voxels, others)
    found, placed = by_us(path)
    np.testing.assert_allclose(placed, affine, atol=1e-5)
    np.testing.assert_array_equal(found, voxels)


@pytest.mark.parametrize("forms", [(1, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("fields", [{"pixdim": {1: -0.7}}, {"pixdim": {1: -0.7, 3: -1.5}}])
def test_negative_voxel_sizes_mean_nothing_as_nibabel_has_it(
    tmp_path: Path, fields: Fields, forms: tuple[int, int]
) -> None:
    path = write(tmp_path / "a.nii", fields, forms)
    voxels, affine = by_nibabel(path)
    found, placed = by_us(path)
    np.testing.assert_allclose(placed, affine, atol=1e-5)
    np.testing.assert_array_equal(found, voxels)


def test_zero_sizes_beyond_the_third_axis_are_one_as_itk_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", {"dim": {0: 4, 4: 0}})
    voxels, affine = by_itk(path)
    found, placed = by_us(path)
    np.testing.assert_allclose(placed, affine, atol=1e-4)
    np.testing.assert_array_equal(found, voxels)


def test_a_voxel_size_of_zero_is_one_and_called_assumed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", {"pixdim": {1: 0}}, (1, 0))
    np.testing.assert_allclose(by_us(path)[1], by_nibabel(path)[1], atol=1e-5)
    np.testing.assert_allclose(by_us(path)[1], by_itk(path)[1], atol=1e-4)
    assert not read_volume(path).spacing_known


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": {3: 0}}, "is empty, its size is 5 x 6 x 0"),
        ({"dim": {0: 4, 4: 2}}, "several time points"),
        ({"magic": b"xx"}, "is not a NIfTI file"),
        ({"vox_offset": np.nan}, "has a broken NIfTI header"),
        ({"vox_offset": 88}, "states that voxels begin at byte 88, inside the header"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "states scl_inter nan"),
        ({"quatern_b": 0.9, "quatern_c": 0.9}, "has a broken NIfTI header"),
        ({"pixdim": {1: np.nan}}, "unusable geometry|broken NIfTI header"),
        ({"datatype": 128}, "RGB or multi-component"),
    ],
)
def test_what_they_do_not_agree_on_is_refused(tmp_path: Path, fields: Fields, message: str) -> None:
    path = write(tmp_path / "a.nii", fields, (1, 0))
    with pytest.raises(UserError, match=message):
        read_volume(path)


def test_two_places_of_one_volume_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = nib.Nifti1Image(VOXELS, AFFINE)
    elsewhere = AFFINE.copy()
    elsewhere[0, 3] += 30
    image.set_qform(AFFINE, 1)
    image.set_sform(elsewhere, 2)
    nib.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").affine[0, 3] == 50
    told = capsys.readouterr().err
    assert told.startswith(f"warning: sform and qform of {tmp_path / 'a.nii'} put it up to 30 mm")
    assert told.count("\n") == 1
    read_volume(write(tmp_path / "b.nii", {}))
    assert capsys.readouterr().err == ""


def test_a_qform_that_is_none_leaves_the_sform(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", {"quatern_b": 0.0, "quatern_c": 0.0, "quatern_d": 1.0005})
    np.testing.assert_allclose(by_us(path)[1], AFFINE, atol=1e-6)
    np.testing.assert_allclose(by_nibabel(path)[1], AFFINE, atol=1e-6)
