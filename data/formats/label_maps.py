"""Label maps among the volumes of a folder: whole numbers that say what a voxel is, no intensity.

Segmentations of data sets lie beside their CT under any name (`segmentations/aorta.nii.gz`,
`labelsTr/lung_001.nii.gz`), so they are told by what they hold.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.formats.nifti import read_layout
from data.formats.nifti_slices import nifti_slices
from data.formats.readers import read_volume
from data.formats.tiff.reader import first_page, tiff_files
from data.formats.zarr_store import is_zarr
from data.formats.zarr_voxels import is_address
from data.volumes.appearance import holds_labels, looked_at
from data.volumes.names import NIFTI_ENDINGS, ending_of
from util.errors import UserError

# Packed CT is half to a tenth of its size, since noise cannot be packed; a label map far less.
LEAST_PACKED = 12
# Of a file that might have to be unpacked whole. Packed label maps are smaller.
MOST_BYTES = 1 << 26


def is_label_map(path: Path, cache_dir: Path | None = None) -> bool:
    """Whether a volume holds labels; one that cannot be read is none, and is refused later.

    A packed file that is large for its voxels is not unpacked.

    Args:
        path: as `data.formats.readers.read_volume` takes it; addresses are not looked at.
        cache_dir: for volumes that have to be unpacked.
    """
    if is_address(path):
        return False
    try:
        slices = []
        for section in _some_slices(path, cache_dir):
            if section.min() < 0 or not np.array_equal(section, np.rint(section)):
                return False  # as nearly every CT shows in its first slice
            slices.append(section)
    except (UserError, OSError):
        return False
    return len(slices) > 0 and holds_labels(np.stack(slices))


def _some_slices(path: Path, cache_dir: Path | None) -> Iterator[np.ndarray]:
    """Slices in physical units; none of a volume that cannot hold labels, or costs much to see."""
    ending = ending_of(path)
    if path.is_dir() and not is_zarr(path):  # segmentations of DICOM are objects of their own
        files = tiff_files(path)  # of pictures none, which are whole only when they are decoded
        yield from (first_page(files[index]) for index in looked_at(len(files)))
        return
    if ending in NIFTI_ENDINGS:
        layout = read_layout(path)
        packed = path.name.lower().endswith(".gz")
        if not packed or layout.file_bytes > LEAST_PACKED * path.stat().st_size:
            yield from nifti_slices(path, looked_at(layout.shape[0]))
        return
    if total_bytes(path) <= MOST_BYTES:
        volume = read_volume(path, cache_dir)
        yield from (volume.read_slice(index) for index in looked_at(volume.num_slices))


def total_bytes(path: Path) -> int:
    """Of a file and those of its name beside it, which may hold its voxels, or of a folder."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    stem = path.name[: -len(ending_of(path))]
    return sum(one.stat().st_size for one in path.parent.glob(f"{glob.escape(stem)}.*"))
