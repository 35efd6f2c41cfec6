"""Render the phantom: average the anatomy over voxels, block by block, then scan it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data.phantom.anatomy.disease import HEALTHY, Disease
from data.phantom.anatomy.foam import FINEST_STEP
from data.phantom.anatomy.patient import Anatomy
from data.phantom.processes import run_jobs
from data.phantom.scanners import ClinicalScanner, MicroScanner
from data.volumes.volume import Volume
from util.errors import UserError
from util.progress import progress

BLOCK_SAMPLES = 64  # samples along a block's side: some 20 MB of working arrays
BLOCK_SIDE = 8.0  # mm; the foam's table of cells grows with the cube of a block's side
BAND_SIDE = 8.0  # mm along y: a process's piece of work, and the tubes that it looks at
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
) -> Volume:
    """Scan a specimen of patient `seed` in the micro-CT.

    Args:
        seed: the patient; the same seed gives the same bytes.
        size: voxels along (x, y, z).
        scanner: default `MicroScanner()`, 0.0625 mm.
        centre: middle of the field of view (x, y, z) in phantom coordinates, mm; by default a
            place wholly in lung around an airway.
        disease: of the patient.
        processes, title: as for `voxel_averages`.

    Returns:
        A volume in memory, uint16 scanner units.

    Raises:
        UserError: the size is not positive, too large, or does not fit in the lung.
    """
    scanner = scanner or MicroScanner()
    refuse_size(size)
    anatomy = Anatomy(seed, disease)
    if centre is None:
        chosen = anatomy.micro_centre(np.multiply(size, scanner.spacing))
        centre = (float(chosen[0]), float(chosen[1]), float(chosen[2]))
    return scan(anatomy, "micro", size, scanner, centre, processes, title)


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
    return scan(anatomy, "clinical", size, scanner, centre, processes, title)


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

    Each voxel is sampled on a regular grid a quarter of the smallest voxel side apart, but never
    finer than FINEST_STEP: 4 x 4 x 4 samples in a clinical voxel of 0.5 mm. The foam is irregular
    and tilted, so that a regular grid meets it at random places, and its walls' smoothing does not
    depend on the step: coarse and fine sampling have the same expectation.

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
    step = max(FINEST_STEP, min(spacing) / 4)
    counts = [max(1, round(length / step)) for length in spacing]
    sides = [
        max(1, min(BLOCK_SAMPLES // count, int(BLOCK_SIDE / length)))
        for count, length in zip(counts, spacing, strict=True)
    ]
    grid = Grid(corner, spacing, size, step, counts, sides)
    bands = grid.bands()
    if processes == 1 or len(bands) == 1:
        values = np.empty(size[::-1], np.float32)
        for first, stop in progress(bands, title or "", "band", hidden=title is None):
            values[:, first:stop] = grid.render(anatomy, first, stop)
        return values
    with TemporaryDirectory() as folder:
        path = Path(folder) / "values.npy"
        shared = np.lib.format.open_memmap(path, "w+", np.float32, size[::-1])
        jobs = [Band(path, anatomy.seed, anatomy.disease, grid, *band).render for band in bands]
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
    step: float  # distance of samples, mm
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
                    places = (
                        self._samples(2, z0, z1),
                        self._samples(1, y0, y1),
                        self._samples(0, x0, x1),
                    )
                    block = anatomy.hounsfield(tubes, *places, self.step)
                    rows = slice(y0 - first_row, y1 - first_row)
                    values[z0:z1, rows, x0:x1] = _block_mean(block, self.counts)
        return values

    def _samples(self, axis: int, first: int, stop: int) -> np.ndarray:
        places = np.arange(first * self.counts[axis], stop * self.counts[axis]) + 0.5
        return self.corner[axis] + places * (self.spacing[axis] / self.counts[axis])


@dataclass(frozen=True)
class Band:
    """A part of a volume that another process renders into a shared file (.npy)."""

    path: Path
    seed: int
    disease: Disease
    grid: Grid
    first: int
    stop: int

    def render(self) -> str:
        """Fill in the rows; the file's name."""
        shared = np.lib.format.open_memmap(self.path, "r+")
        shared[:, self.first : self.stop] = self.grid.render(
            Anatomy(self.seed, self.disease), self.first, self.stop
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


def scan(
    anatomy: Anatomy,
    kind: str,
    size: Size,
    scanner: MicroScanner | ClinicalScanner,
    centre: Point,
    processes: int = 1,
    title: str | None = None,
) -> Volume:
    """What a scanner stores of an anatomy; arguments as for `render_micro`."""
    margin = scanner.margin  # the blur at the border needs what lies outside it
    corner = corner_of(size, scanner.spacing, centre)
    wide = (size[0] + 2 * margin[0], size[1] + 2 * margin[1], size[2] + 2 * margin[2])
    wide_corner = corner - np.multiply(margin, scanner.spacing)
    values = voxel_averages(anatomy, wide_corner, scanner.spacing, wide, processes, title)
    x, y, z = (slice(m, m + n) for m, n in zip(margin, size, strict=True))
    seen = scanner.blur(values)[z, y, x]
    stored = scanner.acquire(seen, np.random.default_rng([anatomy.seed, len(kind)]))
    name = f"phantom_{kind}_seed{anatomy.seed}"
    return Volume(stored, ras_affine(corner, scanner.spacing), name)


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
