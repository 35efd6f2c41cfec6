"""Alveolar walls: a foam of cells with thin septa, ducts, and mouths between the two.

The cells are the Voronoi cells of a jittered lattice (data/phantom/anatomy/lattice.py). Some cells
are duct; between two duct cells there is no wall, so that ducts join into crooked tunnels, and a
wall between a duct and an alveolus may have a round mouth. Cells of two lobules are parted by an
interlobular septum, a plane of connective tissue.

Sizes: Ochs et al., Am. J. Respir. Crit. Care Med. 169 (2004) 120-124 count 170 alveoli per mm^3,
mean alveolar volume 0.0042 mm^3 (0.2 mm across); the cell here, 0.25 mm, is what a micro-CT voxel
of 0.0625 mm can just resolve. Share of tissue: about a tenth of inflated parenchyma (Weibel,
Morphometry of the Human Lung, 1963), in keeping with a mean CT number of -700 to -860 HU of
normal lung over all phases of breathing (J. Comput. Assist. Tomogr. 3 (1979) 740-748: -350 to
-430 EMI units of 2 HU), since the share of gas is close to -CT/1000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from data.phantom.anatomy.disease import HEALTHY, LobuleDisease
from data.phantom.anatomy.lattice import Lattice, hash_words, uniform

FINEST_STEP = 0.03125
"""Width in mm over which a wall's edge is smoothed: the finest sampling step of any rendering.
It is fixed, so that coarser sampling of the same foam has the same mean, only more scatter."""

CHUNK = 32768  # samples treated at once: the working arrays then stay in the processor's cache
INDEX_MASK = 31  # five bits hold which of the 27 neighbours


@dataclass(frozen=True)
class FoamShape:
    """Lengths in mm and shares of the foam."""

    pitch: float = 0.25  # mean distance between cell centres, hence the mean cell width
    # mean septum thickness, capillaries and tissue of both sides. With gradient and patchiness
    # septa measure 9 to 15 um: Weibel (1963) and Gehr et al., Respir. Physiol. 32 (1978) 121-140
    # find some 10 um.
    wall: float = 0.0122
    # relative thickening of the walls per mm towards the back: blood and tissue sink in a patient
    # lying on the back
    gradient: float = 0.003
    patchiness: float = 0.12  # relative spread of wall thickness from lobule to lobule
    duct_share: float = 0.32  # share of cells that belong to alveolar ducts
    # mouth_share, mouth_radius: share of duct-alveolus walls that have a mouth, and its radius
    mouth_share: float = 0.5
    mouth_radius: float = 0.07
    # septum, septum_share: thickness of interlobular septa, and the share of lobule pairs that have
    # one (in man they are incomplete)
    septum: float = 0.06
    septum_share: float = 0.4


class Foam:
    """The foam of one patient: tissue fraction as a function of position."""

    def __init__(
        self,
        seed: int,
        lobules: Lattice,
        shape: FoamShape | None = None,
        ill: LobuleDisease | None = None,
    ) -> None:
        """Args: seed: the patient; lobules: lattice of lobule centres; shape: sizes; ill: which
        lobules are, by default none."""
        self.seed = seed
        self.shape = shape or FoamShape()
        self.ill = ill or LobuleDisease(seed, HEALTHY)
        self.airspaces = Lattice(seed, 45, self.ill.disease.enlarged, 0.8)
        self.lattice = Lattice(seed, 11, self.shape.pitch, 0.8)
        self.lobules = lobules

    def tissue_fraction(self, points: np.ndarray) -> np.ndarray:
        """Share of tissue (0 air, 1 wall) at points (3, n) in mm; float32 (n,).

        Memory grows with the box that the points span, so give the points of one block (some
        mm), not of a volume.
        """
        if points.shape[1] == 0:
            return np.empty(0, np.float32)
        points = np.asarray(points, np.float32)
        table = _CellTable(self.lattice, points)
        one, two, d1, d2 = table.two_nearest(points)
        facts = _CellFacts(self, table, one, two)
        fraction = np.empty(len(one), np.float32)
        for start in range(0, len(one), CHUNK):
            part = slice(start, start + CHUNK)
            cells = (one[part], two[part])
            walls = self._walls(table, facts, *cells, d1[part], d2[part])
            septa = self._septa(facts, cells[0], points[:, part])
            np.maximum(walls, septa, out=fraction[part])
        return fraction

    def _walls(
        self,
        table: _CellTable,
        facts: _CellFacts,
        one: np.ndarray,
        two: np.ndarray,
        d1: np.ndarray,
        d2: np.ndarray,
    ) -> np.ndarray:
        """Share of alveolar wall, from the two nearest cells and their squared distances."""
        shape, pitch = self.shape, np.float32(self.shape.pitch)
        apart = table.square_distance(one, two)
        to_wall = (d2 - d1) / (2 * np.sqrt(apart)) * pitch
        to_middle = ((d1 + d2) / 2 - apart / 4) * (pitch * pitch)
        thickness = np.float32(0.5) * (facts.thickness[one] + facts.thickness[two])
        share = slab_coverage(to_wall, thickness)
        ducts = facts.duct[one] + facts.duct[two]
        mouth = uniform(facts.words[one] ^ facts.words[two]) < shape.mouth_share
        mouth &= to_middle < shape.mouth_radius**2
        share[(ducts == 2) | ((ducts == 1) & mouth)] = 0
        joined = facts.airspace[one]
        share[(joined != 0) & (joined == facts.airspace[two])] = 0
        return share

    def _septa(self, facts: _CellFacts, one: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Share of interlobular septum."""
        height = -facts.offset[one]
        for axis in range(3):
            height += facts.normal[axis][one] * points[axis]
        return slab_coverage(np.abs(height), facts.septum[one])


class _CellTable:
    """The cells of a box around some points, and the search for the two nearest cell points."""

    def __init__(self, lattice: Lattice, points: np.ndarray) -> None:
        first, stop = lattice.cell_range(points.min(axis=1), points.max(axis=1))
        self.lattice, self.first, self.size = lattice, first - 1, stop - first + 2
        axes = [np.arange(a, a + n) for a, n in zip(self.first, self.size, strict=True)]
        self.cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        places = lattice.places(self.cells)
        origin = self.first.astype(np.float32)
        self.places = [np.ascontiguousarray(places[:, a] - origin[a]) for a in range(3)]
        self.steps = np.array([self.size[1] * self.size[2], self.size[2], 1])
        around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        self.offsets = (around @ self.steps).astype(np.intp)

    def square_distance(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """Squared distance of two cells' points, lattice units; cell numbers (n,) -> (n,)."""
        apart = np.zeros(len(one), np.float32)
        for table in self.places:
            apart += np.square(table[one] - table[two])
        return apart

    def two_nearest(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """Numbers of the two cells nearest to points (3, n), and their squared distances."""
        count = points.shape[1]
        one, two = np.empty(count, np.intp), np.empty(count, np.intp)
        d1, d2 = np.empty(count, np.float32), np.empty(count, np.float32)
        matrix = (self.lattice.rotation.T / self.lattice.pitch).astype(np.float32)
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            places = matrix @ points[:, part]
            places -= self.first[:, None].astype(np.float32)
            cells = places.astype(np.intp)
            base = cells[0] * self.steps[0] + cells[1] * self.steps[1] + cells[2]
            nearest, second = self._packed_two_nearest(places, base)
            one[part] = base + self.offsets[nearest & INDEX_MASK]
            two[part] = base + self.offsets[second & INDEX_MASK]
            d1[part], d2[part] = nearest.view(np.float32), second.view(np.float32)
        return one, two, d1, d2

    def _packed_two_nearest(
        self, places: np.ndarray, base: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances to the two nearest cell points with the neighbour's number in their
        last five bits: the bits of non-negative floats order as integers do, so that two integer
        minima per neighbour keep distance and identity at once (relative error 4e-6)."""
        count = len(base)
        index = np.empty(count, np.intp)
        value, square = np.empty(count, np.float32), np.empty(count, np.float32)
        larger = np.empty(count, np.int32)
        nearest = np.full(count, np.float32(1e6).view(np.int32), np.int32)
        second = nearest.copy()
        for number, offset in enumerate(self.offsets):
            np.add(base, offset, out=index)
            for axis, table in enumerate(self.places):
                # "clip" only skips the bounds check: the table has a margin of one cell.
                np.take(table, index, out=value, mode="clip")
                np.subtract(value, places[axis], out=value)
                if axis == 0:
                    np.multiply(value, value, out=square)
                else:
                    np.multiply(value, value, out=value)
                    np.add(square, value, out=square)
            packed = square.view(np.int32)
            np.bitwise_and(packed, ~INDEX_MASK, out=packed)
            np.bitwise_or(packed, number, out=packed)
            np.maximum(nearest, packed, out=larger)
            np.minimum(nearest, packed, out=nearest)
            np.minimum(second, larger, out=second)
        return nearest, second


class _CellFacts:
    """What a sample needs to know of its two nearest cells, in arrays by cell number."""

    def __init__(self, foam: Foam, table: _CellTable, one: np.ndarray, two: np.ndarray) -> None:
        wanted = np.zeros(len(table.cells), bool)
        wanted[one] = True
        wanted[two] = True
        # The box around a tilted block holds several times the cells that its points meet.
        numbers = np.flatnonzero(wanted)
        self.count = len(wanted)
        cells = table.cells[numbers]
        places = np.stack([axis[numbers] for axis in table.places], axis=-1) + table.first
        centres = foam.lattice.to_mm(places)
        self.words = self._spread(numbers, hash_words(foam.seed, 21, cells))
        duct = uniform(hash_words(foam.seed, 22, cells)) < foam.shape.duct_share
        self.duct = self._spread(numbers, duct.astype(np.int8))
        self._read_lobules(foam, numbers, centres)

    def _read_lobules(self, foam: Foam, numbers: np.ndarray, centres: np.ndarray) -> None:
        """Per cell: wall thickness by lobule and height, and the plane to the next lobule."""
        shape, lobules = foam.shape, foam.lobules
        near = lobules.cells_in_box(centres.min(axis=0), centres.max(axis=0))
        points = lobules.to_mm(lobules.places(near).astype(np.float64))
        owners = cKDTree(points).query(centres, k=2)[1]
        words = hash_words(foam.seed, 23, near)
        fibrotic = foam.ill.fibrotic(near, points)
        thicker = np.where(fibrotic, foam.ill.disease.thickened, 1.0)
        spread = (uniform(words)[owners[:, 0]] - 0.5) * 2 * shape.patchiness
        height = np.clip(1 + shape.gradient * centres[:, 1], 0.5, 1.5)
        thickness = shape.wall * (1 + spread) * height * thicker[owners[:, 0]]
        self.thickness = self._spread(numbers, thickness)
        self.airspace = self._spread(numbers, _enlarged(foam, near, points, centres, owners[:, 0]))
        # Sorted: cells on both sides of a septum must see the same plane, ripple and all.
        owners.sort(axis=1)
        pair = uniform(words[owners[:, 0]] ^ words[owners[:, 1]])
        low, high = points[owners[:, 0]], points[owners[:, 1]]
        normal = (high - low) / np.linalg.norm(high - low, axis=1, keepdims=True)
        self.normal = [self._spread(numbers, normal[:, axis]) for axis in range(3)]
        offset = np.einsum("na,na->n", normal, (low + high) / 2) + 0.25 * _ripple(centres)
        # A septum that the pair does not have is put out of reach.
        there = (pair < shape.septum_share) | fibrotic[owners].any(axis=1)
        self.offset = self._spread(numbers, np.where(there, offset, 1e6))
        self.septum = self._spread(numbers, shape.septum * thicker[owners].max(axis=1))

    def _spread(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        kind = np.float32 if values.dtype == np.float64 else values.dtype
        table = np.zeros(self.count, kind)
        table[numbers] = values
        return table


def _enlarged(
    foam: Foam, lobules: np.ndarray, middles: np.ndarray, centres: np.ndarray, owner: np.ndarray
) -> np.ndarray:
    """Which enlarged airspace each cell (its centre in mm, (n, 3)) belongs to: 0 for none.

    Emphysema takes the middle of a lobule, half way to its border.
    """
    ill = foam.ill.emphysematous(lobules)
    if not ill.any():
        return np.zeros(len(centres), np.uint32)
    radius = foam.lobules.pitch * (0.3 + 0.15 * uniform(hash_words(foam.seed, 53, lobules)))
    off = np.linalg.norm(centres - middles[owner], axis=1)
    lost = ill[owner] & (off < radius[owner])
    cells = foam.airspaces.cells_in_box(centres.min(axis=0), centres.max(axis=0))
    points = foam.airspaces.to_mm(foam.airspaces.places(cells).astype(np.float64))
    nearest = cKDTree(points).query(centres)[1]
    return np.where(lost, hash_words(foam.seed, 54, cells)[nearest] | np.uint32(1), np.uint32(0))


def _ripple(points: np.ndarray) -> np.ndarray:
    """A smooth field in [-1, 1], some mm from crest to crest: septa are not flat."""
    return np.sin(points @ (0.9, 0.5, -0.4)) * np.sin(points @ (-0.3, 0.8, 0.6) + 1.0)


def slab_coverage(distance: np.ndarray, thickness: np.ndarray | np.floating) -> np.ndarray:
    """Share of a window FINEST_STEP wide, `distance` mm (>= 0) off the middle of a slab of
    `thickness` mm, that lies in the slab: the partial volume of a thin wall; float32."""
    half, window = thickness * np.float32(0.5), np.float32(FINEST_STEP / 2)
    top = np.minimum(distance + window, half)
    bottom = np.maximum(distance - window, -half)
    return np.maximum(top - bottom, 0) / np.float32(FINEST_STEP)
