"""Label maps among the volumes of a folder: whole numbers that say what a voxel is, no intensity.

Segmentations of data sets lie beside their CT under any name (`segmentations/aorta.nii.gz`,
`labelsTr/lung_001.nii.gz`), so they are told by what they hold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.formats.nifti import nifti_slices, read_layout
from data.formats.readers import read_volume
from data.formats.tiff import first_page, tiff_files
from data.formats.zarr_store import is_address, is_zarr
from data.volumes.names import NIFTI_ENDINGS, ending_of
from util.errors import UserError

LOOKED_AT = (0.3, 0.4, 0.5, 0.6, 0.7)  # slices, as shares of the volume
# Packed CT is half to a tenth of its size, since noise cannot be packed; a label map far less.
LEAST_PACKED = 12
# Of voxels between a label map's lowest and highest value, so many have a neighbour of the same;
# of CT one in fifty, of 8-bit pictures with hardly any noise one in three.
SAME_AS_NEIGHBOUR = 0.8
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
        slices = _some_slices(path, cache_dir)
    except (UserError, OSError):
        return False
    return len(slices) > 0 and holds_labels(np.stack(slices))


def holds_labels(slices: np.ndarray) -> bool:
    """Whether slices (count, rows, columns) hold whole numbers from 0 on in closed regions.

    A volume of one value tells nothing, and is none.
    """
    lowest, highest = slices.min(), slices.max()
    if lowest < 0 or lowest == highest or not np.array_equal(slices, np.rint(slices)):
        return False
    between = (slices > lowest) & (slices < highest)
    if not between.any():  # a mask
        return True
    same = slices[..., 1:] == slices[..., :-1]
    return bool(same[between[..., 1:]].mean() > SAME_AS_NEIGHBOUR)


def _some_slices(path: Path, cache_dir: Path | None) -> list[np.ndarray]:
    """Slices in physical units; none of a volume that cannot hold labels, or costs much to see."""
    ending = ending_of(path)
    if path.is_dir() and not is_zarr(path):  # segmentations of DICOM are objects of their own
        files = tiff_files(path)
        return [first_page(files[index]) for index in _indices(len(files))]
    if ending in NIFTI_ENDINGS:
        layout = read_layout(path)
        packed = path.name.lower().endswith(".gz")
        if packed and layout.file_bytes < LEAST_PACKED * path.stat().st_size:
            return []
        return list(nifti_slices(path, _indices(layout.shape[0])))
    if ending and path.stat().st_size > MOST_BYTES:
        return []
    volume = read_volume(path, cache_dir)
    return [volume.read_slice(index) for index in _indices(volume.num_slices)]


def _indices(count: int) -> list[int]:
    return sorted({int(share * count) for share in LOOKED_AT if count})
