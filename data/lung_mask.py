"""Lung masks: computed from a chest CT by classical steps, or read from a file beside it.

The computed mask follows the recipe of the reference masks: below -400 HU, inside the body, the
two largest pieces, small vessels closed, airways included.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from data.formats.readers import read_volume
from data.volumes.appearance import appearance, holds_labels, is_inverted, looked_at
from data.volumes.cache import cached_file
from data.volumes.geometry import corners
from data.volumes.mapping import map_file, release_pages
from data.volumes.mask_files import find_mask, likely_masks
from data.volumes.volume import Volume
from util.disk.cache_folder import default_cache_dir
from util.errors import UserError, some_of

# Half way between lung (about -850 HU) and soft tissue (about 50 HU).
AIR_BELOW_HU = -400.0

AIR_HU = -1000.0

# Tells lung from open air, airways and gas: in the reference CTs, of each region in a slice, so
# much lies below -970 HU (median): lungs 0.5 % and 0.1 %, open air with clothes and table 54 % and
# 45 %.
OPEN_AIR_HU = -970.0
OPEN_AIR_FRACTION = 0.25

# A tissue region this large, against the largest of its slice, is body and may enclose lung; a
# table's shell or a sheet's rim is not, so that the foam and air inside them stay out.
BODY_FRACTION = 0.25

# The second piece is the other lung or, where the airways join both lungs to one piece, bowel gas.
SECOND_PIECE_FRACTION = 0.2

# Pieces under this fraction of the volume are air pockets, not lungs.
SMALLEST_LUNG_FRACTION = 0.001

# Closes vessels up to about 5 mm wide. Dice against the reference masks: 0.988 and 0.990 without
# closing, 0.994 and 0.996 with it; larger radii lose again at the hilum and the pleura.
CLOSING_RADIUS_MM = 2.5
MOST_CLOSING_PIXELS = 8

# Part of the cached masks' names: change it whenever `compute_lung_mask` gives another result.
RECIPE = "lung mask 1"

MOST_LABELS = 255  # beyond, a mask with noise is an image

# Far below any voxel, far above what float32 affines in file headers lose.
CORNER_TOLERANCE_MM = 0.01

DOUBTFUL, SURE = 1, 2

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def compute_lung_mask(volume: Volume) -> np.ndarray:
    """Segment the lungs, airways included, in a chest CT.

    Works slice by slice wherever it can, so that the nose and mouth, which join the airways to the
    open air in a whole-body CT, do not matter, and memory stays at about 5 bytes a voxel. The
    lungs may touch the image border, as in a tight crop.

    Args:
        volume: clinical CT in HU, any number of slices.

    Returns:
        bool (z, y, x), True in the lungs.

    Raises:
        UserError: no lung found.
    """
    candidates = np.empty(volume.array.shape, dtype=np.uint8)
    for index in range(volume.num_slices):
        candidates[index] = _inner_air(volume.read_slice(index))
    mask = _two_largest_pieces(candidates)
    # Of an inverted image bones would pass for lung, or tissue, which is darker than air then.
    if mask is None or is_inverted(volume) or _median_in(mask, volume) < AIR_HU:
        raise UserError(
            f"no lung found in {volume.source} (air below {AIR_BELOW_HU:g} HU inside the body; "
            f"{appearance(volume)}): give CT in HU, or a mask {volume.name}_mask.nii.gz beside it "
            "(or test with --region all)"
        )
    footprint = _disk(volume.spacing)
    for index in range(volume.num_slices):
        if mask[index].any():
            mask[index] = _closed(mask[index], footprint)
    return mask


def _median_in(mask: np.ndarray, volume: Volume) -> float:
    """Median HU in some slices of a mask that has voxels set."""
    counts = [np.count_nonzero(section) for section in mask]
    chosen = np.argsort(counts)[-3:]
    return float(np.median(np.concatenate([volume.read_slice(i)[mask[i]] for i in chosen])))


def _inner_air(section: np.ndarray) -> np.ndarray:
    """Air that may be lung in one slice (rows, columns) in HU.

    Returns:
        uint8 (rows, columns): SURE for lung-like air enclosed by the body; DOUBTFUL for other
        enclosed air (airways, gas) and for lung-like air cut by the image border (lung in a tight
        crop, or clothes and table); 0 elsewhere.
    """
    regions, count = ndimage.label(section < AIR_BELOW_HU)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    open_air = np.bincount(regions[section < OPEN_AIR_HU], minlength=count + 1)
    lung_like = open_air < OPEN_AIR_FRACTION * sizes

    kinds = np.zeros(count + 1, dtype=np.uint8)
    enclosed = regions[_holes(_body(section >= AIR_BELOW_HU))]
    kinds[enclosed] = np.where(lung_like[enclosed], SURE, DOUBTFUL)
    border = _border(regions)
    kinds[border] = np.where(lung_like[border], DOUBTFUL, 0)
    kinds[0] = 0  # label 0 is tissue
    return kinds[regions]


def _body(tissue: np.ndarray) -> np.ndarray:
    regions, _ = ndimage.label(tissue, _EIGHT_NEIGHBOURS)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    large = sizes >= max(1.0, BODY_FRACTION * sizes.max())
    return large[regions]


def _holes(body: np.ndarray) -> np.ndarray:
    regions, count = ndimage.label(~body)
    closed = np.ones(count + 1, dtype=bool)
    closed[_border(regions)] = False
    closed[0] = False  # label 0 is the body itself
    return closed[regions]


def _border(regions: np.ndarray) -> np.ndarray:
    """Labels along the four sides of a slice."""
    return np.concatenate((regions[0], regions[-1], regions[:, 0], regions[:, -1]))


def _two_largest_pieces(candidates: np.ndarray) -> np.ndarray | None:
    """Keep the largest piece, and the second where it is large enough to be a lung.

    Pieces that are SURE in no slice count only where there are no others: at the lungs' ends,
    clothes and table in a crop's corners are larger than the lungs. The price: of two lungs, one
    that the crop cuts in every slice is left out beside one that it does not cut.

    Args:
        candidates: uint8 (z, y, x) as `_inner_air` gives it.

    Returns:
        bool (z, y, x), the memory of `candidates`, or None where no piece is large enough.
    """
    pieces, count = ndimage.label(candidates, output=np.int32)
    # Slice by slice, since counting the whole array at once copies it to 64 bits.
    sizes = np.zeros(count + 1, dtype=np.int64)
    sure = np.zeros(count + 1, dtype=np.int64)
    for kinds, section in zip(candidates, pieces, strict=True):
        sizes += np.bincount(section.ravel(), minlength=count + 1)
        sure += np.bincount(section[kinds == SURE], minlength=count + 1)
    sizes[0] = 0
    smallest = max(1.0, SMALLEST_LUNG_FRACTION * candidates.size)
    ranking = sure if sure.max() >= smallest else sizes
    second, first = np.argsort(ranking)[-2:] if count else (0, 0)
    if sizes[first] < smallest:
        return None
    kept = np.zeros(count + 1, dtype=bool)
    kept[first] = True
    kept[second] = ranking[second] > 0 and sizes[second] >= SECOND_PIECE_FRACTION * sizes[first]
    mask = candidates.view(bool)
    for index, section in enumerate(pieces):
        mask[index] = kept[section]
    return mask


def _disk(spacing: tuple[float, float, float]) -> np.ndarray:
    """Disk of the closing radius on the slice's pixel grid: bool, odd sizes."""
    across, down = (
        min(MOST_CLOSING_PIXELS, round(CLOSING_RADIUS_MM / size)) for size in spacing[:2]
    )
    y, x = np.ogrid[-down : down + 1, -across : across + 1]
    return (y / max(down, 1)) ** 2 + (x / max(across, 1)) ** 2 <= 1.0


def _closed(section: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    # Without the rim, closing would nibble at lung that touches the image border.
    down, across = footprint.shape[0] // 2, footprint.shape[1] // 2
    rim = np.pad(section, ((down, down), (across, across)))
    rows, columns = section.shape
    return ndimage.binary_closing(rim, footprint)[down : down + rows, across : across + columns]


def load_lung_mask(
    volume: Volume, mask_folder: Path | None = None, cache_dir: Path | None = None
) -> np.ndarray:
    """Lung mask of a whole CT: from a file where there is one, otherwise computed.

    `data.volumes.mask_files.find_mask` looks for the file; its voxels above 0 are lung. A computed
    mask is kept in the cache under the content of the CT's voxels.

    To work on some slices only, load the mask of the whole CT first, then take the same slices of
    both: a mask file is refused, by its size, for a volume restricted before.

    Args:
        volume: clinical CT in HU.
        mask_folder: folder of the user's masks, or None.
        cache_dir: None for the default cache folder.

    Returns:
        uint8 (z, y, x), memory-mapped, non-zero in the lungs, on the grid of `volume`.

    Raises:
        UserError: `mask_folder` does not exist or lacks a mask of this CT; the file is on another
            grid (size, or corners more than 0.01 mm apart), looks like an image or has no voxel
            set; no lung was found.
    """
    cache_dir = cache_dir or default_cache_dir()
    path = find_mask(volume, mask_folder)
    if path is None:
        if likely := likely_masks(volume):
            print(
                f"note: the lung mask of {volume.name} is computed; not taken for it: "
                f"{some_of(likely)} (it is called {volume.name}_mask, and DICOM segmentations are "
                "not read)",
                file=sys.stderr,
            )
        return _kept(volume, cache_dir, _content_key(volume), lambda: compute_lung_mask(volume))
    stored = read_mask(path, volume, cache_dir)

    def sections() -> Iterable[np.ndarray]:
        return (stored.read_slice(index) > 0 for index in range(stored.num_slices))

    if not any(section.any() for section in sections()):
        raise UserError(
            f"mask {path} of {volume.source} has no voxel set: "
            "give a mask with lung in it, or remove it to have one computed"
        )
    plain = isinstance(stored.array, np.ndarray) and stored.array.dtype == np.uint8
    if plain and stored.array.flags.c_contiguous and (stored.slope, stored.intercept) == (1.0, 0.0):
        return stored.array
    # By its voxels, which may lie in other files than the one that was named.
    return _kept(volume, cache_dir, f"{_content_key(stored)}_given", sections)


def read_mask(path: Path, volume: Volume, cache_dir: Path | None) -> Volume:
    """The file of a CT's lung mask, its axes in the CT's order and directions.

    Raises:
        UserError: it cannot be read, is on another grid, or looks like an image.
    """
    try:
        mask = read_volume(path, cache_dir)
    except UserError as error:
        raise UserError(f"lung mask of {volume.name}: {error}") from error
    mask = _turned_as(mask, volume)
    _check_grid(mask, volume)
    some = np.stack([mask.read_slice(index) for index in looked_at(mask.num_slices)])
    if np.abs(some).max() > MOST_LABELS and not holds_labels(some):
        raise UserError(
            f"mask {path} of {volume.source} has values from {some.min():g} to {some.max():g}, "
            "like an image: a mask has 0 outside the lungs and 1 inside"
        )
    return mask


def _turned_as(mask: Volume, volume: Volume) -> Volume:
    """A mask with its axes in the CT's order and directions.

    dcm2niix and others mirror those of a DICOM series, and the mask is made of what they write.
    """
    if not (isinstance(mask.array, np.ndarray) and volume.spacing_known and mask.spacing_known):
        return mask
    # Near 45 degrees rounding decides which axis is which.
    if mask.size == volume.size and _apart(mask, volume) <= CORNER_TOLERANCE_MM:
        return mask
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(mask.affine), nib.io_orientation(volume.affine)
    )
    if np.array_equal(turn, [[0, 1], [1, 1], [2, 1]]):
        return mask
    voxels = mask.array.transpose(2, 1, 0)  # (x, y, z), as nibabel has them
    affine = mask.affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
    turned = nib.orientations.apply_orientation(voxels, turn).transpose(2, 1, 0)
    return replace(mask, array=turned, affine=affine)


def _check_grid(mask: Volume, volume: Volume) -> None:
    if mask.size != volume.size:
        raise UserError(
            f"mask {mask.source} has size {mask.size}, its CT {volume.source} has "
            f"{volume.size}: give a mask made on the same grid"
        )
    # Without a stated voxel size, of either, there is no place in mm to compare.
    known = volume.spacing_known and mask.spacing_known
    if known and not _apart(mask, volume) <= CORNER_TOLERANCE_MM:
        raise UserError(
            f"mask {mask.source} lies up to {_apart(mask, volume):.3g} mm away from its CT "
            f"{volume.source} (at most {CORNER_TOLERANCE_MM:g} mm expected): give a mask made on "
            "the same grid"
        )


def _apart(mask: Volume, volume: Volume) -> float:
    """Largest distance of the corners of two volumes along an axis, in mm."""
    distances = corners(mask.affine, mask.size) - corners(volume.affine, volume.size)
    return float(np.abs(distances).max())


def _content_key(volume: Volume) -> str:
    """Name for the mask computed from these very voxels, whatever file they came from."""
    meaning = (volume.size, volume.spacing, volume.array.dtype.str, volume.slope, volume.intercept)
    digest = hashlib.blake2b(repr((RECIPE, *meaning)).encode(), digest_size=20)
    for section in volume.array:
        digest.update(np.ascontiguousarray(section).data)
        release_pages(section)
    return digest.hexdigest()


def _kept(
    volume: Volume, cache_dir: Path, key: str, make: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """Mask kept in the cache as plain bytes, slice after slice, and mapped from there."""

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            for section in make():
                stream.write(section.astype(np.uint8).data)

    path = cached_file(cache_dir, f"{key}_lung_mask.raw", write)
    return map_file(path, np.dtype(np.uint8), volume.array.shape, 0, str(path))


def preview_slice(volume: Volume, mask: np.ndarray | None) -> int:
    """The slice with most lung; without a mask the middle one."""
    if mask is None:
        return volume.num_slices // 2
    return int(np.argmax([np.count_nonzero(section) for section in mask]))
