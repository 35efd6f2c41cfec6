"""Alveolar walls: a foam of cells of uneven size with thin, bent septa, opening into ducts.

The cells are the Voronoi cells of a jittered lattice (data/phantom/anatomy/lattice.py) in a space
that is bent by smooth random displacements, so that septa are wavy and cells uneven. Alveolar ducts
(data/phantom/anatomy/vessels.py) run through the foam: inside them there are no septa, so that
every cell that a duct cuts opens into it, and the free edges of septa around it are thickened, the
entrance rings. Septa bear capillaries, so that their thickness varies along them and from septum to
septum. Cells of two lobules are parted by an interlobular septum of connective tissue.

Sizes. Alveoli: Ochs et al., Am. J. Respir. Crit. Care Med. 169 (2004) 120-124 count 170 per mm^3,
mean volume 0.0042 mm^3 (0.2 mm across); the cell here, 0.22 mm before ducts are cut into it, is
what a micro-CT voxel of 0.0625 mm can just resolve. Septa of some 10 um: Gehr et al., Respir.
Physiol. 32 (1978) 121-140; Weibel, Morphometry of the Human Lung, 1963. Interlobular septa of about
0.1 mm: Webb, Radiology 239 (2006) 322-338. Share of tissue: about a tenth of inflated parenchyma
(Weibel 1963), in keeping with CT numbers of calm parenchyma of some -880 HU in LIDC-IDRI.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from data.phantom.anatomy.cells import CHUNK, CellTable, nearest_offsets
from data.phantom.anatomy.disease import HEALTHY, LobuleDisease
from data.phantom.anatomy.lattice import Lattice, hash_words, uniform
from data.phantom.anatomy.smooth_field import SmoothField

BLEND = 0.0625
"""Width in mm over which every edge is smoothed, whatever the resolution of a rendering: the
partial volume of a micro-CT voxel. Samples are no farther apart, so that their sum over a voxel of
any size is that of the same tissue."""

RIPPLE = 0.25  # mm by which interlobular septa leave their planes
FAR_FROM_SEPTA = 1.5  # mm from where neither that nor the bends of space lead into one


@dataclass(frozen=True)
class FoamShape:
    """Lengths in mm and shares of the foam."""

    pitch: float = 0.22  # mean distance between cell centres, hence the mean cell width
    wall: float = 0.0117  # mean septum thickness, capillaries and tissue of both sides
    # wall_spread: relative, from septum to septum (evenly drawn); capillaries: along a septum (one
    # standard deviation)
    wall_spread: float = 0.5
    capillaries: float = 0.3
    ring: float = 0.9  # relative thickening of a septum's free edge at a duct
    ring_width: float = 0.05  # mm
    # bends, waves: displacement in mm (one standard deviation along each axis) of space over some
    # alveoli, and within a septum
    bends: float = 0.07
    waves: float = 0.02
    # relative thickening of the walls per mm towards the back: blood and tissue sink in a patient
    # lying on the back
    gradient: float = 0.003
    patchiness: float = 0.06  # relative spread of wall thickness from lobule to lobule
    # septum, septum_share: thickness of interlobular septa, and the share of lobule pairs that have
    # one (in man they are incomplete)
    septum: float = 0.06
    septum_share: float = 0.15


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
        # Along x, y, z each: over some alveoli, and within a septum.
        self._bends = [SmoothField(seed, 61 + axis, 0.6) for axis in range(3)]
        self._waves = [SmoothField(seed, 64 + axis, 0.18) for axis in range(3)]
        self._capillaries = SmoothField(seed, 67, 0.1)

    def tissue_fraction(
        self,
        z: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        wanted: np.ndarray | None = None,
        duct: np.ndarray | None = None,
    ) -> np.ndarray:
        """Share of tissue (0 air, 1 wall) on a grid.

        Memory grows with the grid's box: give one block (some mm), not a volume.

        Args:
            z, y, x: the grid's axes in mm.
            wanted: bool (len(z), len(y), len(x)), where to look; elsewhere the answer is 0.
            duct: float32 of that shape, distance to the nearest duct's surface in mm, negative
                inside; None without ducts.

        Returns:
            float32 (len(z), len(y), len(x)).
        """
        shape = (len(z), len(y), len(x))
        wanted = np.ones(shape, bool) if wanted is None else wanted
        if duct is not None:
            wanted = wanted & (duct > -BLEND / 2)
        fraction = np.zeros(shape, np.float32)
        if not wanted.any():
            return fraction
        points = self._bent_grid(z, y, x, wanted)
        varied = np.maximum(1 + self.shape.capillaries * self._capillaries.on_grid(z, y, x), 0.2)
        if duct is None:
            open_share = None
        else:
            ring = np.abs(duct) < self.shape.ring_width
            varied[ring] *= 1 + np.float32(self.shape.ring)
            open_share = np.clip(0.5 + duct[wanted] / np.float32(BLEND), 0, 1)
        fraction[wanted] = self._fraction(points, varied[wanted], open_share)
        return fraction

    def in_septum(
        self, z: np.ndarray, y: np.ndarray, x: np.ndarray, wanted: np.ndarray
    ) -> np.ndarray:
        """Where an interlobular septum lies on a grid: bool; arguments as for `tissue_fraction`."""
        inside = np.zeros(wanted.shape, bool)
        if wanted.any():
            points = self._bent_grid(z, y, x, wanted)
            table = CellTable(self.lattice, points)
            one, two, _, _ = table.two_nearest(points)
            inside[wanted] = self._septa(_CellFacts(self, table, one, two), one, points) > 0.5
        return inside

    def wall_offset(self, points: np.ndarray) -> np.ndarray:
        """What moves points (n, 3) in mm onto the nearest septum's middle: (n, 3) mm."""
        displaced = self._bent(points)
        one, two = nearest_offsets(self.lattice, displaced)
        normal = two - one
        middle = (two + one) / 2  # the middle between the two is on the septum
        height = (middle * normal).sum(axis=1) / np.square(normal).sum(axis=1)
        return normal * height[:, None]

    def septum_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of points (n, 3) in mm to the nearest interlobular septum's surface: (n,) mm;
        very large where the two lobules around have none."""
        if len(points) == 0:
            return np.zeros(0)
        # Most lie so far away that bends do not matter.
        border = _LobuleBorder(self, points)
        distance = np.abs(np.einsum("na,na->n", border.normal, points) - border.offset)
        near = np.flatnonzero(distance < FAR_FROM_SEPTA)
        if len(near):
            displaced = self._bent(points[near])
            border = _LobuleBorder(self, displaced)
            height = np.einsum("na,na->n", border.normal, displaced) - border.offset
            height -= RIPPLE * _ripple(displaced)
            distance[near] = np.abs(height) - border.septum / 2
        return distance

    def _bent(self, points: np.ndarray) -> np.ndarray:
        """Where points (n, 3) in mm lie in the space whose cells are the foam's."""
        bends, waves = self.shape.bends, self.shape.waves
        moved = [
            bends * wide.at(points) + waves * narrow.at(points)
            for wide, narrow in zip(self._bends, self._waves, strict=True)
        ]
        return points + np.stack(moved, axis=-1)

    def _bent_grid(
        self, z: np.ndarray, y: np.ndarray, x: np.ndarray, wanted: np.ndarray
    ) -> np.ndarray:
        """The same of a grid's wanted points: float32 (3, n)."""
        grid = (x, y[:, None], z[:, None, None])
        return np.stack(
            [
                (axis.astype(np.float32) + self._displacement(number, z, y, x))[wanted]
                for number, axis in enumerate(grid)
            ]
        )

    def _displacement(self, axis: int, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        bends, waves = np.float32(self.shape.bends), np.float32(self.shape.waves)
        moved = bends * self._bends[axis].on_grid(z, y, x)
        moved += waves * self._waves[axis].on_grid(z, y, x)
        return moved

    def _fraction(
        self, points: np.ndarray, varied: np.ndarray, open_share: np.ndarray | None
    ) -> np.ndarray:
        """Share of tissue at bent points (3, n), with a factor on the thickness of septa (n,) and
        how much of them is left beside a duct (n,)."""
        table = CellTable(self.lattice, points)
        one, two, d1, d2 = table.two_nearest(points)
        facts = _CellFacts(self, table, one, two)
        fraction = np.empty(len(one), np.float32)
        for start in range(0, len(one), CHUNK):
            part = slice(start, start + CHUNK)
            cells = (one[part], two[part])
            walls = self._walls(table, facts, *cells, d1[part], d2[part], varied[part])
            if open_share is not None:
                walls *= open_share[part]
            septa = self._septa(facts, cells[0], points[:, part])
            np.maximum(walls, septa, out=fraction[part])
        return fraction

    def _walls(
        self,
        table: CellTable,
        facts: _CellFacts,
        one: np.ndarray,
        two: np.ndarray,
        d1: np.ndarray,
        d2: np.ndarray,
        varied: np.ndarray,
    ) -> np.ndarray:
        """Share of alveolar wall, from the two nearest cells and their squared distances."""
        shape, pitch = self.shape, np.float32(self.shape.pitch)
        apart = table.square_distance(one, two)
        to_wall = (d2 - d1) / (2 * np.sqrt(apart)) * pitch
        thickness = np.float32(0.5) * (facts.thickness[one] + facts.thickness[two]) * varied
        drawn = uniform(facts.words[one] ^ facts.words[two]) - np.float32(0.5)
        thickness *= 1 + np.float32(2 * shape.wall_spread) * drawn
        share = slab_coverage(to_wall, thickness)
        joined = facts.airspace[one]
        share[(joined != 0) & (joined == facts.airspace[two])] = 0
        return share

    def _septa(self, facts: _CellFacts, one: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Share of interlobular septum."""
        height = -facts.offset[one]
        for axis in range(3):
            height += facts.normal[axis][one] * points[axis]
        share = np.zeros(len(one), np.float32)
        near = np.flatnonzero(np.abs(height) < 2 * RIPPLE)
        height = height[near] - np.float32(RIPPLE) * _ripple(points[:, near].T)
        share[near] = slab_coverage(np.abs(height), facts.septum[one[near]])
        return share


class _CellFacts:
    """What a sample needs to know of its two nearest cells, in arrays by cell number."""

    def __init__(self, foam: Foam, table: CellTable, one: np.ndarray, two: np.ndarray) -> None:
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
        self._read_lobules(foam, numbers, centres)

    def _read_lobules(self, foam: Foam, numbers: np.ndarray, centres: np.ndarray) -> None:
        """Per cell: wall thickness by lobule and height, and the septum to the next lobule."""
        shape = foam.shape
        border = _LobuleBorder(foam, centres)
        drawn = uniform(hash_words(foam.seed, 23, border.near))[border.owners[:, 0]]
        height = np.clip(1 + shape.gradient * centres[:, 1], 0.5, 1.5)
        thickness = shape.wall * (1 + (2 * drawn - 1) * shape.patchiness) * height
        self.thickness = self._spread(numbers, thickness * border.thickened)
        airspace = _enlarged(foam, border.near, border.points, centres, border.owners[:, 0])
        self.airspace = self._spread(numbers, airspace)
        self.normal = [self._spread(numbers, border.normal[:, axis]) for axis in range(3)]
        self.offset = self._spread(numbers, border.offset)
        self.septum = self._spread(numbers, border.septum)

    def _spread(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        kind = np.float32 if values.dtype == np.float64 else values.dtype
        table = np.zeros(self.count, kind)
        table[numbers] = values
        return table


class _LobuleBorder:
    """The lobule that places (n, 3) in bent space lie in, and the septum to the next one."""

    def __init__(self, foam: Foam, places: np.ndarray) -> None:
        shape, lobules = foam.shape, foam.lobules
        self.near = lobules.cells_in_box(places.min(axis=0), places.max(axis=0))
        self.points = lobules.to_mm(lobules.places(self.near).astype(np.float64))
        self.owners = cKDTree(self.points).query(places, k=2)[1]
        fibrotic = foam.ill.fibrotic(self.near, self.points)
        thicker = np.where(fibrotic, foam.ill.disease.thickened, 1.0)
        self.thickened = thicker[self.owners[:, 0]]
        # Sorted: both sides of a septum must see the same plane.
        pair = np.sort(self.owners, axis=1)
        words = hash_words(foam.seed, 23, self.near)
        drawn = uniform(words[pair[:, 0]] ^ words[pair[:, 1]])
        low, high = self.points[pair[:, 0]], self.points[pair[:, 1]]
        self.normal = (high - low) / np.linalg.norm(high - low, axis=1, keepdims=True)
        there = (drawn < shape.septum_share) | fibrotic[pair].any(axis=1)
        # A septum that the pair does not have is put out of reach.
        middle = np.einsum("na,na->n", self.normal, (low + high) / 2)
        self.offset = np.where(there, middle, 1e6)
        varied = 0.6 + 0.8 * np.minimum(drawn / max(shape.septum_share, 1e-6), 1)
        self.septum = shape.septum * varied * thicker[pair].max(axis=1)


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
    directions = np.array([(0.9, 0.5, -0.4), (-0.3, 0.8, 0.6)], points.dtype).T
    angles = points @ directions
    return np.sin(angles[:, 0]) * np.sin(angles[:, 1] + 1)


def slab_coverage(distance: np.ndarray, thickness: np.ndarray | np.floating) -> np.ndarray:
    """Share of a window BLEND wide, `distance` mm (>= 0) off the middle of a slab of `thickness`
    mm, that lies in the slab: the partial volume of a thin wall; float32."""
    half, window = thickness * np.float32(0.5), np.float32(BLEND / 2)
    top = np.minimum(distance + window, half)
    bottom = np.maximum(distance - window, -half)
    return np.maximum(top - bottom, 0) / np.float32(BLEND)
