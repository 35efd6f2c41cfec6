"""Render the phantom: average the anatomy over voxels, block by block, then scan it."""

from __future__ import annotations

import numpy as np

from data.phantom_anatomy import Anatomy
from data.phantom_foam import FINEST_STEP
from data.phantom_scanners import ClinicalScanner, MicroScanner, blur
from data.volume import Volume
from util.errors import UserError

BLOCK_SAMPLES = 64  # samples along a block's side: some 20 MB of working arrays
BLOCK_SIDE = 8.0  # mm; the foam's table of cells grows with the cube of a block's side
LARGEST_VOXELS = 2**27  # refuse what would not fit in memory as float32 with its copies

Size = tuple[int, int, int]
Point = tuple[float, float, float]


def render_micro(
    seed: int, size: Size, scanner: MicroScanner | None = None, centre: Point | None = None
) -> Volume:
    """Scan a specimen of patient `seed` in the micro-CT.

    Args:
        seed: the patient; the same seed gives the same bytes.
        size: voxels along (x, y, z).
        scanner: default `MicroScanner()`, 0.0625 mm.
        centre: middle of the field of view (x, y, z) in phantom coordinates, mm; by default a
            place wholly in lung around an airway.

    Returns:
        A volume in memory, uint16 scanner units.

    Raises:
        UserError: the size is not positive, too large, or does not fit in the lung.
    """
    scanner = scanner or MicroScanner()
    _check_size(size)
    anatomy = Anatomy(seed)
    if centre is None:
        chosen = anatomy.micro_centre(np.multiply(size, scanner.spacing))
        centre = (float(chosen[0]), float(chosen[1]), float(chosen[2]))
    return _scan(anatomy, "micro", size, scanner, centre)


def render_clinical(
    seed: int, size: Size, scanner: ClinicalScanner | None = None, centre: Point | None = None
) -> Volume:
    """Scan the chest of patient `seed` in the clinical CT.

    Args as for `render_micro`; by default the field of view is centred on the lung at the level
    of the nodule. Returns a volume in memory, int16 HU.
    """
    scanner = scanner or ClinicalScanner()
    _check_size(size)
    anatomy = Anatomy(seed)
    return _scan(anatomy, "clinical", size, scanner, centre or clinical_centre(anatomy))


def render_lung_mask(
    seed: int, size: Size, scanner: ClinicalScanner | None = None, centre: Point | None = None
) -> Volume:
    """The lung (all within the pleura: parenchyma, vessels, airways, nodule) on the same grid as
    `render_clinical`, from the anatomy: uint8, 1 where the voxel's centre is lung."""
    scanner = scanner or ClinicalScanner()
    _check_size(size)
    anatomy = Anatomy(seed)
    corner = _corner(size, scanner.spacing, centre or clinical_centre(anatomy))
    x, y, z = (
        low + (np.arange(count) + 0.5) * step
        for low, count, step in zip(corner, size, scanner.spacing, strict=True)
    )
    mask = (anatomy.depth(z, y, x) < 0).astype(np.uint8)
    return Volume(mask, ras_affine(corner, scanner.spacing), f"phantom_lung_mask_seed{seed}")


def clinical_centre(anatomy: Anatomy) -> Point:
    """Default middle of the clinical field of view: a little towards the mediastinum."""
    return 2.0, 0.0, anatomy.level


def ras_affine(corner: np.ndarray, spacing: Point) -> np.ndarray:
    """Affine of a grid whose outer corner is `corner` in phantom coordinates (x left, y back,
    z up, mm): RAS+, hence both in-plane axes turned."""
    first = corner + np.array(spacing) / 2
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (-first[0], -first[1], first[2])
    return affine


def voxel_averages(anatomy: Anatomy, corner: np.ndarray, spacing: Point, size: Size) -> np.ndarray:
    """Mean CT number of the anatomy over each voxel.

    Each voxel is sampled on a regular grid a quarter of the smallest voxel side apart, but never
    finer than FINEST_STEP: 4 x 4 x 8 samples in a clinical voxel of 0.5 x 0.5 x 1 mm. The foam
    is irregular and tilted, so that a regular grid meets it at random places, and its walls'
    smoothing does not depend on the step: coarse and fine sampling have the same expectation.

    Args:
        corner: outer corner of the first voxel (x, y, z), mm.
        spacing: voxel size along (x, y, z), mm.
        size: voxels along (x, y, z).

    Returns:
        HU, float32 (z, y, x).
    """
    step = max(FINEST_STEP, min(spacing) / 4)
    counts = [max(1, round(length / step)) for length in spacing]
    tubes = anatomy.tubes(corner, corner + np.multiply(size, spacing))
    sides = [
        max(1, min(BLOCK_SAMPLES // count, int(BLOCK_SIDE / length)))
        for count, length in zip(counts, spacing, strict=True)
    ]
    values = np.empty(size[::-1], np.float32)

    def samples(axis: int, first: int, stop: int) -> np.ndarray:
        places = np.arange(first * counts[axis], stop * counts[axis]) + 0.5
        return corner[axis] + places * (spacing[axis] / counts[axis])

    spans = [
        [(first, min(first + side, count)) for first in range(0, count, side)]
        for side, count in zip(sides, size, strict=True)
    ]
    for z0, z1 in spans[2]:
        for y0, y1 in spans[1]:
            for x0, x1 in spans[0]:
                grid = (samples(2, z0, z1), samples(1, y0, y1), samples(0, x0, x1))
                block = anatomy.hounsfield(tubes, *grid, step)
                values[z0:z1, y0:y1, x0:x1] = _block_mean(block, counts)
    return values


def _block_mean(samples: np.ndarray, counts: list[int]) -> np.ndarray:
    """Mean over blocks of `counts` (x, y, z) samples of a (z, y, x) array."""
    # Adding strided views is several times faster than a mean over a short axis.
    total = samples
    for axis, count in zip((2, 1, 0), counts, strict=True):
        moved = np.moveaxis(total, axis, -1)
        part = moved[..., ::count].copy()
        for shift in range(1, count):
            part += moved[..., shift::count]
        total = np.moveaxis(part, -1, axis)
    return total / np.float32(np.prod(counts))


def _scan(
    anatomy: Anatomy,
    kind: str,
    size: Size,
    scanner: MicroScanner | ClinicalScanner,
    centre: Point,
) -> Volume:
    corner = _corner(size, scanner.spacing, centre)
    # The blur at the border needs what lies outside it.
    margin = [int(np.ceil(3 * sigma)) for sigma in scanner.psf_sigma]
    wide_size = (size[0] + 2 * margin[0], size[1] + 2 * margin[1], size[2] + 2 * margin[2])
    wide_corner = corner - np.multiply(margin, scanner.spacing)
    values = voxel_averages(anatomy, wide_corner, scanner.spacing, wide_size)
    values = blur(values, scanner.psf_sigma[::-1])
    x, y, z = (slice(m, m + n) for m, n in zip(margin, size, strict=True))
    generator = np.random.default_rng([anatomy.seed, len(kind)])
    stored = scanner.acquire(values[z, y, x], generator)
    name = f"phantom_{kind}_seed{anatomy.seed}"
    return Volume(stored, ras_affine(corner, scanner.spacing), name)


def _corner(size: Size, spacing: Point, centre: Point) -> np.ndarray:
    return np.array(centre) - np.multiply(size, spacing) / 2


def _check_size(size: Size) -> None:
    if min(size) < 1 or int(np.prod(size, dtype=np.int64)) > LARGEST_VOXELS:
        raise UserError(
            f"phantom size {size}: expected three positive numbers of voxels, at most "
            f"{LARGEST_VOXELS} voxels in all"
        )
