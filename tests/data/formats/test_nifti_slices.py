"""Slices picked out of NIfTI files equal those of the whole volume."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data.formats.nifti_slices import nifti_slices
from util.errors import UserError


@pytest.fixture(
    params=[("volume.nii", (2.0, -7.0)), ("volume.nii.gz", (2.0, -7.0)), ("volume.nii", (0.1, 0.7))]
)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file whose slices are larger than a block of the reader, with slope and intercept."""
    array = np.random.default_rng(0).integers(-1000, 1000, (900, 700, 5)).astype(np.int16)
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(*request.param[1])
    nib.save(image, tmp_path / request.param[0])
    return tmp_path / str(request.param[0])


@pytest.mark.parametrize("indices", [[0, 1, 2, 3, 4], [0, 4], [3], []])
def test_slices_equal_the_volume(path: Path, indices: list[int]) -> None:
    expected = np.asarray(nib.Nifti1Image.from_filename(path).dataobj)
    found = list(nifti_slices(path, indices))
    assert len(found) == len(indices)
    for index, values in zip(indices, found, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected[:, :, index].T.astype(np.float32))


@pytest.mark.parametrize("indices", [[1, 0], [2, 2], [5], [-1]])
def test_wrong_indices_are_refused(path: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="increasing indices"):
        next(nifti_slices(path, indices))


def test_cut_off_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated"):
        list(nifti_slices(path, [4]))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        next(nifti_slices(tmp_path / "none.nii", [0]))


def test_an_offset_beyond_any_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(1e30).tobytes()  # vox_offset
    path.write_bytes(content)
    with pytest.raises(UserError):
        list(nifti_slices(path, [0]))
