"""The one entrance: unknown and missing files, silence, and memory far below the volume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
import tifffile

from data.formats.readers import read_volume
from util.errors import UserError

ROOT = Path(__file__).resolve().parents[3]

MEASURE = """
import sys
from pathlib import Path
import data.formats.itk  # loads SimpleITK, which only NRRD and MetaImage would do later
from data.formats.readers import read_volume

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
volume = read_volume(sys.argv[1])
sums = [float(volume.read_slice(index).sum()) for index in range(volume.num_slices)]
for index in range(volume.num_slices):
    volume.read_patch(index, 100, 100, 64, 64)
volume.slice_digests()
print(peak() - before)
"""


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such\.nii does not exist"):
        read_volume(tmp_path / "no such.nii")
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(UserError, match=r"a\.xyz has an unknown format: give NIfTI"):
        read_volume(str(tmp_path / "a.xyz"))


def test_folders_that_are_no_series(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nrrd"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"holds 2 volume files.*for example a\.nii"):
        read_volume(tmp_path)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "1.dcm").touch()
    (mixed / "1.tif").touch()
    with pytest.raises(UserError, match="mixed holds both DICOM and TIFF"):
        read_volume(mixed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch(mode=0o000)
    with pytest.raises(UserError, match=r"a\.nii cannot be read \(Permission denied"):
        read_volume(tmp_path / "a.nii")


def test_failing_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "a.nii").touch()
    monkeypatch.setattr("data.formats.readers.read_nifti", fail)
    with pytest.raises(UserError, match=r"a\.nii cannot be read \(Input/output error"):
        read_volume(tmp_path / "a.nii")


def test_cache_folder_given(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    read_volume(tmp_path / "a.nii.gz", cache_dir=tmp_path / "own cache")
    assert len(list((tmp_path / "own cache").glob("[!.]*"))) == 1


def _big_volume() -> np.ndarray:
    """96 MB that pack fast and well, yet no two slices are alike."""
    slices = np.arange(192, dtype=np.int16)[:, None, None]
    return (np.tile(np.arange(512, dtype=np.int16), (512, 1))[None] + slices).astype(np.int16)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' memory account")
@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.tif", "zlib.tif", "stack"]
)
def test_memory_stays_far_below_the_size_of_the_volume(tmp_path: Path, name: str) -> None:
    voxels, path = _big_volume(), tmp_path / name
    if ".nii" in name:
        nib.save(nib.Nifti1Image(voxels.T, np.eye(4)), path)
    elif name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), True, compressionLevel=1)
    elif name == "stack":
        path.mkdir()
        for index, pixels in enumerate(voxels):
            tifffile.imwrite(path / f"{index}.tif", pixels)
    else:
        packing = "zlib" if name == "zlib.tif" else None
        tifffile.imwrite(path, voxels, photometric="minisblack", compression=packing)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    assert int(done.stdout) < 24_000, "kilobytes beyond the imports, of a volume of 96 MB"
