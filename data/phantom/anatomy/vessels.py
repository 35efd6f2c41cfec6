"""Airways, arteries and veins of one patient, from the hilum to alveolar ducts and venules.

The main trees reach every lobule of the lung and are grown once. Inside a lobule the branches
are a bush that depends on the lobule's index alone, and on each tip of the airways' bush sits a
small bush of alveolar ducts; they are grown only where one looks.

Lobular bronchiole and artery of somewhat less than 1 mm for lobules of 11 mm, arteries in the
middle of a lobule and veins at its border: Webb, Radiology 239 (2006) 322-338. Artery and airway
lie in one sheath and touch. Airway walls of about a seventh of the outer diameter and more in small
airways: Weibel (1963); Montaudon et al., J. Anat. 211 (2007) 579-588. Alveolar ducts are 0.3 to
0.5 mm wide between the openings of their alveoli, and some 0.7 mm apart: Haefeli-Bleuer and Weibel,
Anat. Rec. 220 (1988) 401-414. The smallest vessels run in septa and at the edges of ducts. In an
excised specimen vessels are filled with blood, collapsed, or filled with air.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.phantom.anatomy.chest import ChestShape, fissure_distance, lung_depth, outline
from data.phantom.anatomy.foam import Foam
from data.phantom.anatomy.lattice import Lattice, hash_words, uniform
from data.phantom.anatomy.tree import (
    Box,
    Tree,
    Tubes,
    beside,
    grow_bushes,
    grow_tree,
    join,
    radii,
    subdivide,
    tubes_of,
)

AIRWAY_RADIUS = 0.34  # lumen of the bronchiole that enters a lobule, mm
ARTERY_RADIUS = 0.187  # artery beside it, mm
VEIN_RADIUS = 0.177  # vein that leaves a territory of a lobule's size, mm
# A parent's radius to this power is the sum of its daughters': Murray's law in airways. In arteries
# of human lungs 2.3 to 2.7 were measured (Singhal et al., Circ. Res. 33 (1973) 190-197; Huang et
# al., J. Appl. Physiol. 81 (1996) 2123-2133); 2.8 and, inside lobules, 4.5 were chosen for calm
# parenchyma of the contrast of real scans (benchmarks/phantom_texture.py).
AIRWAY_EXPONENT, VESSEL_EXPONENT, BUSH_EXPONENT = 3.0, 2.8, 4.5
SMALLEST_AIRWAY = 0.2  # lumen radius where a bronchiole's wall dissolves into alveoli, mm
DUCT_RADIUS = (0.15, 0.22)  # smallest and largest of alveolar ducts, mm
TIPS_PER_SIDE = 8  # a bush has 8 x 8 x 8 end points: one every 1.4 mm
TIPS = TIPS_PER_SIDE**3
DUCTS_PER_SIDE = 2  # each of these has 2 x 2 x 2 ducts' ends: one every 0.7 mm
IN_SEPTA = 0.12  # vessels thinner than this run in septa: radius in mm
LOBULE_MARGIN = 2.5  # a lobule's bronchiole enters it this deep under the pleura, mm
BUSH_MARGIN = 0.8  # and a bush's branches this deep, mm
TOUCHING = 0.95  # of an artery's radius: it lies a little in the airway's wall
SWAY = 0.45  # by how much tubes bend, mm; wavelengths are about 10 to 30 mm
PIECE, SMALL_PIECE = 1.5, 0.3  # longest straight parts of tubes, and of those in septa, mm
REACH = 2.0  # mm around a box that tubes are grown in: their widths, and what they bend by
SPECIMEN_STATES = (0.3, 0.6)  # of a specimen's vessels: this share is collapsed, up to that airy
COLLAPSED = 0.5  # of its radius


NO_TUBES = Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class RegionTubes:
    """The tubes that may show in a region."""

    # lumen, airway: bronchi and bronchioles by inner and by outer wall
    lumen: Tubes
    airway: Tubes
    ducts: Tubes  # alveolar ducts: no wall but the alveoli's
    vessels: Tubes  # arteries and veins
    emptied: Tubes  # the lumen of those that are filled with air


def wall_thickness(lumen_radius: np.ndarray) -> np.ndarray:
    """Airway wall in mm by lumen radius in mm."""
    return 0.03 + 0.2 * lumen_radius


def vessel_wall(radius: np.ndarray) -> np.ndarray:
    """Wall of an air-filled vessel in mm by its outer radius in mm."""
    return 0.03 + 0.1 * radius


class Vessels:
    """Trees of one patient; `region` gives the tubes near a box."""

    def __init__(
        self, seed: int, chest: ChestShape, lobules: Lattice, foam: Foam, specimen: bool = False
    ) -> None:
        """Args: seed: the patient; chest: the lung's outline; lobules: lattice of lobules; foam:
        whose septa hold the smallest vessels; specimen: whether vessels may be empty."""
        self.seed, self.chest, self.lobules, self.foam = seed, chest, lobules, foam
        self.specimen = specimen
        # Veins drain territories whose middles are where lobules meet, and run between the ducts.
        self.drains = lobules.between(35, 0.5 + 0.5 / TIPS_PER_SIDE)
        generator = np.random.default_rng([seed, 41])
        self.waves = generator.normal(size=(3, 3)) * 0.35
        self.phases = generator.uniform(0, 2 * np.pi, (3, 3))
        radius = float(outline(chest, np.array(chest.notch_angle))) + 2.0
        hilum = radius * np.array([np.cos(chest.notch_angle), np.sin(chest.notch_angle), 0])
        self.hilum = hilum + np.array([0.0, 4.0, 14.0])
        self.airway_cells, self.airway_tree, self.airway_leaves = self._grow(
            lobules, self.hilum, seed * 7 + 1
        )
        vein_root = self.hilum + np.array([2.0, -9.0, -10.0])
        self.vein_cells, self.vein_tree, self.vein_leaves = self._grow(
            self.drains, vein_root, seed * 7 + 2
        )
        self.airway_radii = radii(self.airway_tree, AIRWAY_RADIUS, 1, AIRWAY_EXPONENT)
        lumen, owner = self._cut(tubes_of(self.airway_tree, self.airway_radii), PIECE)
        self.main_lumen = lumen
        arteries, tips = self._arteries(lumen, owner, self.airway_tree, 1, None)
        self.artery_tips = tips[self.airway_leaves - 1]  # branch n of the tree is tube n - 1
        veins, vein_owner = self._cut(
            tubes_of(self.vein_tree, radii(self.vein_tree, VEIN_RADIUS, 1, VESSEL_EXPONENT)), PIECE
        )
        states = self._states(np.arange(len(self.airway_tree.ends)), 71)
        vein_states = self._states(np.arange(len(self.vein_tree.ends)), 72)
        # Connecting pieces behind the others belong to the branch that they lead into.
        owners = np.concatenate([owner, np.arange(len(arteries.starts) - len(owner))])
        self.main_vessels = join([arteries, veins])
        self.main_states = np.concatenate([states[owners + 1], vein_states[vein_owner + 1]])

    def region(self, low: np.ndarray, high: np.ndarray) -> RegionTubes:
        """All tubes that come near the box low..high (mm, (3,) each)."""
        lumens, ducts = [self.main_lumen.near(low, high, 3.0)], []
        main = self.main_vessels.touches(low, high, 3.0)
        vessels, states = [self.main_vessels.select(main)], [self.main_states[main]]
        chosen = self._near(self.lobules, self.airway_cells, low, high)
        box = (low - REACH, high + REACH)
        if len(chosen):
            cells = self.airway_cells[chosen]
            roots = self.airway_tree.ends[self.airway_leaves[chosen]]
            bush, numbers = grow_bushes(roots, self._tips(self.lobules, cells), box)
            lumen = tubes_of(bush, radii(bush, AIRWAY_RADIUS, TIPS, AIRWAY_EXPONENT))
            keys = self._keys(cells, numbers[len(cells) :])
            kept = self._inside(lumen)
            airy = lumen.end_radii > SMALLEST_AIRWAY
            pieces, owner = self._cut(lumen, PIECE)
            lumens.append(pieces.select((kept & airy)[owner]))
            widths = self._duct_radii(keys)
            branches = Tubes(lumen.starts, lumen.ends, widths, widths)
            ducts.append(self._cut(branches.select(kept & ~airy), PIECE)[0])
            ducts.append(self._ducts(bush, box))
            arteries, _ = self._arteries(pieces, owner, bush, TIPS, self.artery_tips[chosen])
            owners = np.concatenate([owner, np.arange(len(lumen.starts))])
            vessels.append(arteries.select(kept[owners]))
            states.append(self._states(keys[:, 0], 71)[owners][kept[owners]])
        chosen = self._near(self.drains, self.vein_cells, low, high)
        if len(chosen):
            cells = self.vein_cells[chosen]
            roots = self.vein_tree.ends[self.vein_leaves[chosen]]
            bush, numbers = grow_bushes(roots, self._tips(self.drains, cells), box)
            vein = tubes_of(bush, radii(bush, VEIN_RADIUS, TIPS, BUSH_EXPONENT))
            kept = self._inside(vein)
            pieces, owner = self._cut(vein, PIECE)
            vessels.append(pieces.select(kept[owner]))
            keys = self._keys(cells, numbers[len(cells) :])
            states.append(self._states(keys[:, 0], 72)[owner][kept[owner]])
        lumen = join(lumens).near(low, high, 1.0)
        outer = Tubes(
            lumen.starts,
            lumen.ends,
            lumen.start_radii + wall_thickness(lumen.start_radii),
            lumen.end_radii + wall_thickness(lumen.end_radii),
        )
        near_ducts = self._within_lobules(join([*ducts, NO_TUBES]).near(low, high, 1.0))
        blood, emptied = self._filled(join(vessels), np.concatenate(states), low, high)
        return RegionTubes(lumen, outer, near_ducts, blood, emptied)

    def _grow(
        self, lattice: Lattice, root: np.ndarray, seed: int
    ) -> tuple[np.ndarray, Tree, np.ndarray]:
        """Cells of the lattice inside the lung (n, 3), the tree to them, each cell's branch."""
        cells = lattice.cells_in_box(np.full(3, -90.0), np.full(3, 90.0))
        centres = lattice.to_mm(lattice.places(cells).astype(np.float64))
        # The branch enters a lobule on the side of the hilum.
        inward = root - centres
        inward /= np.linalg.norm(inward, axis=1, keepdims=True)
        entries = centres + 0.3 * lattice.pitch * inward
        inside = self._depth(entries) < -LOBULE_MARGIN
        cells, centres, entries = cells[inside], centres[inside], entries[inside]
        lower = fissure_distance(self.chest, *centres.T) > 0
        order = np.concatenate([np.flatnonzero(~lower), np.flatnonzero(lower)])
        tree, leaves = grow_tree(root, [entries[~lower], entries[lower]], seed)
        return cells[order], tree, leaves

    def _tips(self, lattice: Lattice, cells: np.ndarray) -> np.ndarray:
        """End points in mm (m, 512, 3) of the bushes in cells (m, 3)."""
        return self._jittered(lattice, _children(cells, TIPS_PER_SIDE), TIPS_PER_SIDE, 5)

    def _jittered(
        self, lattice: Lattice, cells: np.ndarray, per_side: int, stream: int
    ) -> np.ndarray:
        """A point in mm in each cell of a lattice `per_side` times as fine."""
        shifts = np.stack(
            [uniform(hash_words(self.seed, lattice.stream + stream + a, cells)) for a in range(3)],
            axis=-1,
        )
        places = (cells + 0.15 + 0.7 * shifts) / per_side
        return lattice.to_mm(places.astype(np.float64))

    def _ducts(self, bush: Tree, box: Box) -> Tubes:
        """The ducts behind the tips of bushes of airways, near a box."""
        ends = bush.ends[bush.tips == 1]
        ends = ends[self._depth(ends) < -BUSH_MARGIN]
        places = np.floor(self.lobules.to_lattice(ends) * TIPS_PER_SIDE).astype(np.int64)
        fine = _children(places, DUCTS_PER_SIDE)
        targets = self._jittered(self.lobules, fine, TIPS_PER_SIDE * DUCTS_PER_SIDE, 15)
        small, numbers = grow_bushes(ends, targets, box)
        widths = self._duct_radii(self._keys(places, numbers[len(ends) :]))
        branches = tubes_of(small, np.ones(len(small.ends)))
        tubes = Tubes(branches.starts, branches.ends, widths, widths)
        return self._cut(tubes.select(self._inside(tubes)), PIECE)[0]

    def _keys(self, cells: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """What tells the branches of bushes in cells (m, 3) apart, whatever else is looked at:
        integers (n, 3), the first of them the same throughout a bush."""
        bush = hash_words(self.seed, 74, cells).astype(np.int64)[numbers[:, 0]]
        return np.stack([bush, numbers[:, 1], np.zeros_like(bush)], axis=-1)

    def _within_lobules(self, ducts: Tubes) -> Tubes:
        """The ducts that do not cut into an interlobular septum."""
        apart = np.minimum(
            self.foam.septum_distance(ducts.starts), self.foam.septum_distance(ducts.ends)
        )
        return ducts.select(apart > ducts.start_radii)

    def _duct_radii(self, keys: np.ndarray) -> np.ndarray:
        low, high = DUCT_RADIUS
        return low + (high - low) * uniform(hash_words(self.seed, 73, keys)).astype(np.float64)

    def _arteries(
        self,
        lumen: Tubes,
        owner: np.ndarray,
        tree: Tree,
        fed: int,
        roots: np.ndarray | None,
    ) -> tuple[Tubes, np.ndarray]:
        """Arteries that touch the walls of airways.

        Args:
            lumen: the airways of a tree in pieces.
            owner: the tube of each, as `tubes_of` counts.
            tree: whose airways they are.
            fed: end points of the tree that a lobule's artery feeds.
            roots: (m, 3) where the arteries of the tree's m roots begin, mm; None for beside them.

        Returns:
            A tube for each piece and then one for each branch, which joins it to its parent's; and
            where each branch's artery ends, (n, 3) mm.
        """
        exponent = VESSEL_EXPONENT if roots is None else BUSH_EXPONENT
        own = tubes_of(tree, radii(tree, ARTERY_RADIUS, fed, exponent))
        pieces, _ = subdivide(own, PIECE)
        widths, distances = (pieces.start_radii, pieces.end_radii), []
        for radius, width in zip((lumen.start_radii, lumen.end_radii), widths, strict=True):
            airway = radius + wall_thickness(radius)
            sleeve = np.where(radius > SMALLEST_AIRWAY, airway, sum(DUCT_RADIUS) / 2)
            distances.append(sleeve + TOUCHING * width)
        along = beside(lumen, (distances[0], distances[1]), widths)
        branches = np.flatnonzero(tree.parents >= 0)
        count = len(branches)
        first = np.searchsorted(owner, np.arange(count))
        last = np.searchsorted(owner, np.arange(count), side="right") - 1
        ends, starts, width = along.ends[last], along.starts[first], along.start_radii[first]
        tube_of_branch = np.full(len(tree.parents), -1)
        tube_of_branch[branches] = np.arange(count)
        parent = tree.parents[branches]
        comes_from = ends[tube_of_branch[parent]]
        at_root = tree.parents[parent] < 0
        comes_from[at_root] = starts[at_root] if roots is None else roots[parent[at_root]]
        return join([along, Tubes(comes_from, starts, width, width)]), ends

    def _filled(
        self, vessels: Tubes, states: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[Tubes, Tubes]:
        """Vessels as they show near a box, the smallest in septa, and the lumens of airy ones."""
        near = vessels.touches(low, high, 1.0)
        vessels, states = vessels.select(near), states[near]
        width = np.where(states == 1, COLLAPSED, 1.0)
        vessels = Tubes(
            vessels.starts, vessels.ends, width * vessels.start_radii, width * vessels.end_radii
        )
        small = vessels.start_radii < IN_SEPTA
        pieces, _ = subdivide(vessels.select(small), SMALL_PIECE)
        pieces = pieces.near(low, high, SMALL_PIECE)
        if len(pieces.starts):
            starts, ends = (
                points + self.foam.wall_offset(points) for points in (pieces.starts, pieces.ends)
            )
            pieces = Tubes(starts, ends, pieces.start_radii, pieces.end_radii)
        airy = vessels.select((states == 2) & ~small)
        start, end = (radius - vessel_wall(radius) for radius in (airy.start_radii, airy.end_radii))
        emptied = Tubes(airy.starts, airy.ends, start, end).select((start > 0) & (end > 0))
        return join([vessels.select(~small), pieces]), emptied

    def _states(self, keys: np.ndarray, stream: int) -> np.ndarray:
        """Whether vessels by number are full (0), collapsed (1) or airy (2): (n,)."""
        if not self.specimen:
            return np.zeros(len(keys), np.int64)
        cells = np.stack([keys, np.zeros_like(keys), np.zeros_like(keys)], axis=-1)
        drawn = uniform(hash_words(self.seed, stream, cells))
        return np.where(drawn < SPECIMEN_STATES[0], 1, np.where(drawn < SPECIMEN_STATES[1], 2, 0))

    def _near(
        self, lattice: Lattice, cells: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """Indices of the cells whose bush could reach into the box."""
        reach = np.abs(lattice.rotation).sum(axis=1) * lattice.pitch / 2 + REACH
        middles = lattice.to_mm(cells + 0.5)
        return np.flatnonzero(np.all((middles > low - reach) & (middles < high + reach), axis=1))

    def _inside(self, tubes: Tubes) -> np.ndarray:
        """Which tubes neither leave the lung nor pass through the fissure: bool (n,)."""
        inside = self._depth(tubes.ends) < -BUSH_MARGIN
        before = fissure_distance(self.chest, *tubes.starts.T)
        after = fissure_distance(self.chest, *tubes.ends.T)
        return inside & (before * after > 0)

    def _depth(self, points: np.ndarray) -> np.ndarray:
        return lung_depth(self.chest, points[:, 0], points[:, 1], points[:, 2])

    def _cut(self, tubes: Tubes, longest: float) -> tuple[Tubes, np.ndarray]:
        """Bend straight tubes a little, all structures of one place alike; see `subdivide`."""
        pieces, owner = subdivide(tubes, longest)
        bent = Tubes(
            pieces.starts + self._sway(pieces.starts),
            pieces.ends + self._sway(pieces.ends),
            pieces.start_radii,
            pieces.end_radii,
        )
        return bent, owner

    def _sway(self, points: np.ndarray) -> np.ndarray:
        waves = [np.sin(points @ self.waves + phase) for phase in self.phases]
        return SWAY * np.stack([wave.sum(axis=1) / np.sqrt(3) for wave in waves], axis=1)


def _children(cells: np.ndarray, per_side: int) -> np.ndarray:
    """Cells (n, per_side^3, 3) of a lattice `per_side` times as fine in cells (n, 3)."""
    steps = np.arange(per_side)
    inner = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return cells[:, None, :] * per_side + inner
