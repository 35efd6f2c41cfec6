"""NIfTI writer: exact geometry and HU, equal bytes, nothing half finished."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from scipy.spatial.transform import Rotation

from data.formats.readers import read_volume
from data.volumes.geometry import corners, enlarged_affine
from data.writing.nifti_writer import NiftiSliceWriter, write_volume
from util.errors import UserError

VOXELS = np.random.default_rng(0).integers(-1024, 3000, (6, 5, 4)).astype(np.int16)
SIZE = (4, 5, 6)


def load(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def oblique_affine(seed: int = 0, mirrored: bool = False) -> np.ndarray:
    affine = np.eye(4)
    rotation = Rotation.random(random_state=seed).as_matrix()
    affine[:3, :3] = rotation * [0.0875, 0.0875, -2.5 if mirrored else 2.5]
    affine[:3, 3] = (-166.0, 171.7, -190.0)
    return affine


def assert_same_geometry(path: Path, affine: np.ndarray) -> None:
    image = load(path)
    header = image.header
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)
    assert int(header["qform_code"]) == int(header["sform_code"]) == 1
    # nibabel's own header of a loaded image hides the scaling, so read it from the file.
    block = (gzip.open if path.name.endswith(".gz") else open)(path, "rb")
    with block:
        stored = type(header)(block.read(header.template_dtype.itemsize))
    assert (float(stored["scl_slope"]), float(stored["scl_inter"])) == (1.0, 0.0)
    assert header.get_xyzt_units()[0] == "mm"
    itk = sitk.ReadImage(str(path))
    size = np.array(itk.GetSize())
    for index in (np.zeros(3), size - 1.0):
        point = itk.TransformContinuousIndexToPhysicalPoint(index.tolist())
        expected = (affine @ [*index, 1.0])[:3] * [-1, -1, 1]
        np.testing.assert_allclose(point, expected, atol=1e-3)
    np.testing.assert_allclose(itk.GetSpacing(), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", ["a b.nii", "a b.nii.gz"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_round_trip(tmp_path: Path, name: str, mirrored: bool, seed: int) -> None:
    affine = oblique_affine(seed, mirrored)
    path = tmp_path / "new folder" / name
    write_volume(path, VOXELS, affine)
    assert_same_geometry(path, affine)
    itk = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), VOXELS)
    np.testing.assert_array_equal(np.asarray(load(path).dataobj).T, VOXELS)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert (volume.slope, volume.intercept) == (1.0, 0.0)
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_written_enlargement_covers_the_same_space(tmp_path: Path) -> None:
    affine = oblique_affine(5)
    write_volume(tmp_path / "low.nii", VOXELS, affine)
    large = np.repeat(np.repeat(VOXELS, 8, axis=1), 8, axis=2)
    write_volume(tmp_path / "high.nii", large, enlarged_affine(affine, 8))
    low, high = read_volume(tmp_path / "low.nii"), read_volume(tmp_path / "high.nii")
    expected = corners(low.affine, low.size)
    np.testing.assert_allclose(corners(high.affine, high.size), expected, atol=1e-3)


def test_floats_are_rounded_and_clipped(tmp_path: Path) -> None:
    values = np.array([[-1e9, -0.6, -0.4], [0.4, 0.6, 40000.0]], np.float32)
    with NiftiSliceWriter(tmp_path / "a.nii", (3, 2, 1), np.eye(4)) as writer:
        writer.append(values)
    stored = read_volume(tmp_path / "a.nii").array
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored[0], [[-32768, -1, 0], [0, 1, 32767]])


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_stored_types(tmp_path: Path, dtype: type) -> None:
    values = np.linspace(-5, 300, 24).reshape(2, 3, 4)
    write_volume(tmp_path / "a.nii", values, np.eye(4), dtype=dtype)
    stored = read_volume(tmp_path / "a.nii").array
    assert stored.dtype == dtype
    limits = (0, 255) if dtype is np.uint8 else (-32768, 32767)
    expected = values if dtype is np.float32 else np.clip(np.rint(values), *limits)
    np.testing.assert_array_equal(stored, expected.astype(dtype))


def test_masks_and_large_integers(tmp_path: Path) -> None:
    write_volume(tmp_path / "m.nii.gz", VOXELS > 0, np.eye(4), dtype=np.uint8)
    np.testing.assert_array_equal(read_volume(tmp_path / "m.nii.gz").array, VOXELS > 0)
    large = np.array([[[-(2**40), 2**24 + 1, 7]]])
    write_volume(tmp_path / "l.nii", large, np.eye(4), dtype=np.int32)
    np.testing.assert_array_equal(
        read_volume(tmp_path / "l.nii").array, [[[-(2**31), 2**24 + 1, 7]]]
    )


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.nii.gz", tmp_path / "another name.nii.gz"]
    for path in paths:
        write_volume(path, VOXELS, np.eye(4))
        time.sleep(1.1 if path is paths[0] else 0)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_nifti_2_beyond_32767(tmp_path: Path) -> None:
    values = np.arange(33000, dtype=np.int16).reshape(1, 1, 33000)
    write_volume(tmp_path / "a.nii.gz", values, np.eye(4))
    assert isinstance(load(tmp_path / "a.nii.gz"), nib.Nifti2Image)
    np.testing.assert_allclose(load(tmp_path / "a.nii.gz").header.get_qform(), np.eye(4).tolist())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, values)
    write_volume(tmp_path / "b.nii", values[:, :, :32767], np.eye(4))
    assert type(load(tmp_path / "b.nii")) is nib.Nifti1Image


def test_sheared_affine(tmp_path: Path) -> None:
    affine = oblique_affine(3)
    affine[:3, 2] += affine[:3, 1] * 4
    write_volume(tmp_path / "a.nii", VOXELS, affine)
    header = load(tmp_path / "a.nii").header
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-4)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    np.testing.assert_allclose(header.get_qform()[:3, :3], left @ right * spacing, atol=1e-4)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").affine, affine, atol=1e-4)


def test_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    write_volume(path, VOXELS, np.eye(4))
    with pytest.raises(UserError, match=r"output .*a\.nii exists already"):
        write_volume(path, VOXELS + np.int16(1), np.eye(4))
    np.testing.assert_array_equal(read_volume(path).array, VOXELS)
    write_volume(path, VOXELS + np.int16(1), np.eye(4), overwrite=True)
    np.testing.assert_array_equal(read_volume(path).array, VOXELS + 1)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_stays_after_an_error_and_the_old_file_does(
    tmp_path: Path, name: str, existing: bool
) -> None:
    path = tmp_path / name
    if existing:
        path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        _write_until_interrupted(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([b"old"] if existing else [])


def _write(path: Path, slices: list[np.ndarray]) -> None:
    with NiftiSliceWriter(path, SIZE, np.eye(4)) as writer:
        for values in slices:
            writer.append(values)


def _write_until_interrupted(path: Path) -> None:
    with NiftiSliceWriter(path, SIZE, np.eye(4), overwrite=True) as writer:
        writer.append(VOXELS[0])
        assert path.with_name(f"{path.name}.partial").exists()
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_missing_slices(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="closed after 5 of 6 slices"):
        _write(tmp_path / name, list(VOXELS[:5]))
    assert list(tmp_path.iterdir()) == []


def test_too_many_slices_wrong_shape_and_closed_writer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slice 6 "):
        _write(tmp_path / "a.nii", [*VOXELS, VOXELS[0]])
    with pytest.raises(ValueError, match=r"expected 6 slices of \(5, 4\)"):
        _write(tmp_path / "a.nii", [VOXELS[0].T])
    closed = NiftiSliceWriter(tmp_path / "a.nii", SIZE, np.eye(4))
    with pytest.raises(ValueError, match="is not open"):
        closed.append(VOXELS[0])
    assert list(tmp_path.iterdir()) == []


def test_nan_values(tmp_path: Path) -> None:
    values = np.zeros((5, 4), np.float32)
    values[2, 2] = np.nan
    with pytest.raises(UserError, match=r"slice 0 for .*a\.nii holds NaN"):
        _write(tmp_path / "a.nii", [values])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.nrrd", "a", "a.gz"])
def test_other_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: give a name that ends in \.nii or \.nii\.gz"):
        write_volume(tmp_path / name, VOXELS, np.eye(4))


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"output .*file/a\.nii cannot be written") as caught:
        write_volume(tmp_path / "file" / "a.nii", VOXELS, np.eye(4))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"):
        write_volume(folder / "a.nii", VOXELS, np.eye(4))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("slices", [1, 40])
def test_full_disk(tmp_path: Path, name: str, slices: int) -> None:
    """A file-size limit stands in for a full disk: it strikes in `append` or in closing."""
    noise = np.random.default_rng(0).integers(-999, 999, (slices, 100, 100)).astype(np.int16)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=rf"output .*{name} cannot be written \(File too large"):
            write_volume(tmp_path / name, noise, np.eye(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
