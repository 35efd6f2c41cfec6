"""What other libraries read in the inputs of benchmarks/fuzz.py."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the library's own short name
import tifffile
from PIL import Image

Read = tuple[np.ndarray, np.ndarray | None]  # voxels (x, y, z), RAS+ affine where one is stated
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def unlike_others(case: Path, ours: Path) -> str | None:
    """What differs between the input as we read it and as each of its judges does; None where one
    of them agrees."""
    image = nib.Nifti1Image.from_filename(ours)
    voxels, affine = np.asanyarray(image.dataobj), image.affine
    found = "read what others refuse"
    for judge in judges(case):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs, place = judge()
        except Exception:  # noqa: BLE001 - they refuse it with errors of many types
            continue
        theirs = np.clip(np.rint(theirs), -32768, 32767)
        if voxels.shape != theirs.shape or not np.array_equal(voxels, theirs):
            found = "voxels unlike those of others"
        elif place is None or np.allclose(affine, place, atol=0.01):
            return None
        else:
            found = "a place unlike that of others"
    return found


def judges(case: Path) -> Iterator[Callable[[], Read]]:
    """Those who know the format of this input."""
    store = case / "ct.zarr"
    names = sorted(path for path in case.iterdir() if path.name.startswith("ct."))
    if store.exists():
        yield lambda: by_zarr(store)
        yield lambda: by_zarr_array(store / "0")
    elif not names and not any(case.glob("*.dcm")):
        yield lambda: by_pillow(case)
    elif not names:
        yield lambda: by_itk_series(case)
        yield lambda: by_pydicom(case)
    elif names[0].suffix == ".tif":
        yield lambda: (np.atleast_3d(tifffile.imread(names[0]).T), None)
    elif {".nii", ".hdr"} & set(names[0].suffixes):
        yield lambda: by_nibabel(names[0])
        yield lambda: by_itk([str(names[0])])
    else:
        headers = [path for path in names if path.suffix in (".nrrd", ".nhdr", ".mha", ".mhd")]
        yield lambda: by_itk([str(path) for path in headers])


def by_nibabel(path: Path) -> Read:
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    return voxels.reshape(voxels.shape[:3]), image.affine  # type: ignore[attr-defined]


def by_itk(names: list[str]) -> Read:
    found = sitk.ReadImage(names[0] if len(names) == 1 else names)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(found.GetDirection(), (3, 3)) * found.GetSpacing()
    affine[:3, 3] = found.GetOrigin()
    return sitk.GetArrayFromImage(found).T, LPS @ affine


def by_itk_series(case: Path) -> Read:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(case))
    if len(names) != len(list(case.iterdir())):
        raise ValueError("ITK leaves files out without a word")
    return by_itk(list(names))


def by_pydicom(case: Path) -> Read:
    """Slices by their position, or the frames of one file by theirs."""
    slices = []
    for path in case.iterdir():
        header = pydicom.dcmread(path)
        frames = header.pixel_array * header.get("RescaleSlope", 1)
        frames = frames + header.get("RescaleIntercept", 0)
        if "PerFrameFunctionalGroupsSequence" in header:
            groups = header.PerFrameFunctionalGroupsSequence
            slices += [
                (group.PlanePositionSequence[0], f) for group, f in zip(groups, frames, strict=True)
            ]
        else:
            slices.append((header, frames))
    row, column = np.reshape(np.float64(header.ImageOrientationPatient), (2, 3))
    places = [np.float64(plane.ImagePositionPatient) for plane, _ in slices]
    order = np.argsort([place @ np.cross(row, column) for place in places])
    first, last = places[order[0]], places[order[-1]]
    affine = np.eye(4)
    affine[:3, 0] = row * float(header.PixelSpacing[1])
    affine[:3, 1] = column * float(header.PixelSpacing[0])
    affine[:3, 2] = (last - first) / (len(places) - 1)
    affine[:3, 3] = first
    return np.stack([slices[number][1] for number in order]).T, LPS @ affine


def by_pillow(case: Path) -> Read:
    """Without its place: the log gives the size of a pixel alone."""
    names = sorted(path for path in case.iterdir() if path.suffix != ".log")
    if names[0].suffix == ".tif":
        return np.stack([tifffile.imread(path) for path in names]).T, None
    images = [Image.open(path) for path in names]
    grey = [image.convert("L") if image.mode == "P" else image for image in images]
    return np.stack([np.asarray(image) for image in grey]).T, None


def by_zarr(store: Path) -> Read:
    import zarr

    array = zarr.open_group(str(store), mode="r")["0"]
    return np.asarray(array[:]).T, None  # type: ignore[index]


def by_zarr_array(path: Path) -> Read:
    import zarr

    return np.asarray(zarr.open_array(str(path), mode="r")[:]).T, None
