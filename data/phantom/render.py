"""Render the phantom: average the anatomy over voxels, block by block, then scan it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data.phantom.anatomy.disease import HEALTHY, Disease
from data.phantom.anatomy.foam import BLEND
from data.phantom.anatomy.patient import Anatomy
from data.phantom.processes import run_jobs
from data.phantom.scanners import THIN, ClinicalScanner, MicroScanner
from data.volumes.volume import Volume
from util.errors import UserError
from util.progress import progress

BLOCK_SAMPLES = 64  # samples along a block's side: some 20 MB of working arrays
BLOCK_SIDE = 8.0  # mm; the foam's table of cells grows with the cube of a block's side
ROUNDING = 1e-6  # of a sample: what voxel sizes may be off by
# mm from the lung on, where tissue is coarse and no micro-CT looks, samples are this much farther
# apart
OUTSIDE, COARSER = 1.0, 4
BAND_SIDE = 3.2  # mm along y: a process's piece of work, and the tubes that it looks at
LARGEST_VOXELS = 2**27  # refuse what would not fit in memory as float32 with its copies

Size = tuple[int, int, int]
Point = tuple[float, float, float]


def render_micro(
    seed: int,
    size: Size,
    scanner: MicroScanner | None = None,
    centre: Point | None = None,
    disease: Disease = HEALTHY,
    processes: int = 1,
    title: str | None = None,
    specimen: bool = False,
) -> Volume:
    """Scan a block of patient `seed`'s lung in the micro-CT.

    Args:
        seed: the patient; the same seed gives the same bytes.
        size: voxels along (x, y, z).
        scanner: default `MicroScanner()`, 0.0625 mm.
        centre: middle of the field of view (x, y, z) in phantom coordinates, mm; by default a
            place wholly in lung around an airway.
        disease: of the patient.
        processes, title: as for `voxel_averages`.
        specimen: whether it was excised, so that vessels may be collapsed or filled with air.

    Returns:
        A volume in memory, uint16 scanner units.

    Raises:
        UserError: the size is not positive, too large, or does not fit in the lung.
    """
    scanner = scanner or MicroScanner()
    refuse_size(size)
    anatomy = Anatomy(seed, disease, specimen)
    if centre is None:
        chosen = anatomy.micro_centre(np.multiply(size, scanner.spacing))
        centre = (float(chosen[0]), float(chosen[1]), float(chosen[2]))
    margin = scanner.margin  # the blur at the border needs what lies outside it
    corner = corner_of(size, scanner.spacing, centre)
    wide = (size[0] + 2 * margin[0], size[1] + 2 * margin[1], size[2] + 2 * margin[2])
    wide_corner = corner - np.multiply(margin, scanner.spacing)
    values = voxel_averages(anatomy, wide_corner, scanner.spacing, wide, processes, title)
    x, y, z = (slice(m, m + n) for m, n in zip(margin, size, strict=True))
    stored = scanner.acquire(scanner.blur(values)[z, y, x], np.random.default_rng([seed, 5]))
    return Volume(stored, ras_affine(corner, scanner.spacing), f"phantom_micro_seed{seed}")


def render_clinical(
    seed: int,
    size: Size,
    scanner: ClinicalScanner | None = None,
    centre: Point | None = None,
    disease: Disease = HEALTHY,
    processes: int = 1,
    title: str | None = None,
) -> Volume:
    """Scan the chest of patient `seed` in the clinical CT.

    Args as for `render_micro`; by default the field of view is centred on the lung at the level
    of the nodule. Returns a volume in memory, int16 HU.
    """
    scanner = scanner or ClinicalScanner()
    refuse_size(size)
    anatomy = Anatomy(seed, disease)
    centre = centre or clinical_centre(anatomy)
    margin, reach = scanner.margin, scanner.reach(THIN)
    spacing = (scanner.pixel, scanner.pixel, scanner.slice_thickness / THIN)
    corner = corner_of(size, scanner.spacing, centre)
    wide = (size[0] + 2 * margin, size[1] + 2 * margin, size[2] * THIN + 2 * reach)
    wide_corner = corner - np.multiply((margin, margin, reach), spacing)
    values = voxel_averages(anatomy, wide_corner, spacing, wide, processes, title)
    stored = clinical_from(scanner, scanner.slices(values, THIN), anatomy.seed)
    return Volume(stored, ras_affine(corner, scanner.spacing), f"phantom_clinical_seed{seed}")


def render_lung_mask(
    seed: int, size: Size, scanner: ClinicalScanner | None = None, centre: Point | None = None
) -> Volume:
    """The lung (all within the pleura: parenchyma, vessels, airways, nodule) on the same grid as
    `render_clinical`, from the anatomy: uint8, 1 where the voxel's centre is lung."""
    scanner = scanner or ClinicalScanner()
    refuse_size(size)
    anatomy = Anatomy(seed)
    corner = corner_of(size, scanner.spacing, centre or clinical_centre(anatomy))
    mask = (anatomy.depth(*voxel_centres(corner, scanner.spacing, size)) < 0).astype(np.uint8)
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


def voxel_centres(corner: np.ndarray, spacing: Point, size: Size) -> tuple[np.ndarray, ...]:
    """Positions in mm of the voxels' centres along (z, y, x), of a grid with this outer corner."""
    x, y, z = (
        low + (np.arange(count) + 0.5) * step
        for low, count, step in zip(corner, size, spacing, strict=True)
    )
    return z, y, x


def voxel_averages(
    anatomy: Anatomy,
    corner: np.ndarray,
    spacing: Point,
    size: Size,
    processes: int = 1,
    title: str | None = None,
) -> np.ndarray:
    """Mean CT number of the anatomy over each voxel.

    Each voxel is sampled on a regular grid that is no coarser than the width BLEND over which edges
    are smoothed: once in a micro-CT voxel of 0.0625 mm, 8 x 8 x 8 times in a clinical one of 0.5.
    So the average of fine voxels is the coarse voxel, exactly where their grids fit together and
    within some HU elsewhere.

    Args:
        corner: outer corner of the first voxel (x, y, z), mm.
        spacing: voxel size along (x, y, z), mm.
        size: voxels along (x, y, z).
        processes: parts of the volume rendered at once, each in a process of its own. The values
            do not depend on it.
        title: of a progress bar; None shows none.

    Returns:
        HU, float32 (z, y, x).
    """
    counts = [max(1, int(np.ceil(length / BLEND - ROUNDING))) for length in spacing]
    sides = [
        max(1, min(BLOCK_SAMPLES // count, int(BLOCK_SIDE / length)))
        for count, length in zip(counts, spacing, strict=True)
    ]
    grid = Grid(corner, spacing, size, counts, sides)
    bands = grid.bands()
    if processes == 1 or len(bands) == 1:
        values = np.empty(size[::-1], np.float32)
        for first, stop in progress(bands, title or "", "band", hidden=title is None):
            values[:, first:stop] = grid.render(anatomy, first, stop)
        return values
    with TemporaryDirectory() as folder:
        path = Path(folder) / "values.npy"
        shared = np.lib.format.open_memmap(path, "w+", np.float32, size[::-1])
        jobs = [
            Band(path, anatomy.seed, anatomy.disease, anatomy.specimen, grid, *band).render
            for band in bands
        ]
        done = run_jobs(jobs, min(processes, len(bands)))
        for _ in progress(done, title or "", "band", len(bands), hidden=title is None):
            pass
        return np.array(shared)


@dataclass(frozen=True)
class Grid:
    """A grid of voxels with the samples in each."""

    # corner, spacing, size: see `voxel_averages`
    corner: np.ndarray
    spacing: Point
    size: Size
    counts: list[int]  # samples in a voxel along (x, y, z)
    sides: list[int]  # voxels in a block along (x, y, z), which is evaluated at once

    def bands(self) -> list[tuple[int, int]]:
        """Rows (first, stop) of some blocks each: pieces of work with tubes of their own."""
        height = self.sides[1] * max(1, round(BAND_SIDE / (self.sides[1] * self.spacing[1])))
        rows = self.size[1]
        return [(first, min(first + height, rows)) for first in range(0, rows, height)]

    def render(self, anatomy: Anatomy, first_row: int, stop_row: int) -> np.ndarray:
        """Mean CT number of the voxels of some rows: float32 (z, rows, x)."""
        low = self.corner + np.multiply((0, first_row, 0), self.spacing)
        high = self.corner + np.multiply((self.size[0], stop_row, self.size[2]), self.spacing)
        tubes = anatomy.tubes(low, high)
        values = np.empty((self.size[2], stop_row - first_row, self.size[0]), np.float32)
        ranges = ((0, self.size[0]), (first_row, stop_row), (0, self.size[2]))
        spans = [
            [(first, min(first + side, stop)) for first in range(start, stop, side)]
            for side, (start, stop) in zip(self.sides, ranges, strict=True)
        ]
        for z0, z1 in spans[2]:
            for y0, y1 in spans[1]:
                for x0, x1 in spans[0]:
                    ranges = ((x0, x1), (y0, y1), (z0, z1))
                    counts = self.counts
                    middles = [self._samples(axis, *ranges[axis], 1) for axis in (2, 1, 0)]
                    if anatomy.depth(*middles).min() > OUTSIDE + max(self.spacing):
                        counts = [-(-count // COARSER) for count in counts]
                    places = [
                        self._samples(axis, *ranges[axis], counts[axis]) for axis in (2, 1, 0)
                    ]
                    rows = slice(y0 - first_row, y1 - first_row)
                    block = anatomy.hounsfield(tubes, *places)
                    values[z0:z1, rows, x0:x1] = _block_mean(block, counts)
        return values

    def _samples(self, axis: int, first: int, stop: int, count: int) -> np.ndarray:
        places = np.arange(first * count, stop * count) + 0.5
        return self.corner[axis] + places * (self.spacing[axis] / count)


@dataclass(frozen=True)
class Band:
    """A part of a volume that another process renders into a shared file (.npy)."""

    path: Path
    seed: int
    disease: Disease
    specimen: bool
    grid: Grid
    first: int
    stop: int

    def render(self) -> str:
        """Fill in the rows; the file's name."""
        shared = np.lib.format.open_memmap(self.path, "r+")
        shared[:, self.first : self.stop] = self.grid.render(
            Anatomy(self.seed, self.disease, self.specimen), self.first, self.stop
        )
        return self.path.name


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


def clinical_from(scanner: ClinicalScanner, slices: np.ndarray, seed: int) -> np.ndarray:
    """What a clinical scanner stores of slices with a margin: HU (z, y, x) -> int16 without it."""
    margin = scanner.margin
    seen = scanner.blur(slices)[:, margin:-margin, margin:-margin]
    return scanner.acquire(seen, np.random.default_rng([seed, 8]))


def corner_of(size: Size, spacing: Point, centre: Point) -> np.ndarray:
    """Outer corner (x, y, z) in mm of a grid around `centre`."""
    return np.array(centre) - np.multiply(size, spacing) / 2


def refuse_size(size: Size) -> None:
    """Refuse a volume of no voxels, or of too many.

    Raises:
        UserError: says the size.
    """
    if min(size) < 1 or int(np.prod(size, dtype=np.int64)) > LARGEST_VOXELS:
        raise UserError(
            f"phantom size {size}: expected three positive numbers of voxels, at most "
            f"{LARGEST_VOXELS} voxels in all"
        )
