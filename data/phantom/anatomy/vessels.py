"""Airways, arteries and veins of one patient, from the hilum to a few 0.1 mm.

The main trees reach every lobule of the lung and are grown once. Inside a lobule the branches
are a bush that depends on the lobule's index alone; bushes are grown only where one looks.
Lobular bronchiole and artery of about 1 mm, arteries in the middle of a lobule and veins at its
border: Webb, Radiology 239 (2006) 322-338. Airway walls of about a seventh of the outer diameter
and more in small airways: Weibel (1963); Montaudon et al., J. Anat. 211 (2007) 579-588.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.phantom.anatomy.chest import ChestShape, fissure_distance, lung_depth, outline
from data.phantom.anatomy.lattice import Lattice, hash_words, uniform
from data.phantom.anatomy.tree import (
    Tree,
    Tubes,
    companion,
    grow_bushes,
    grow_tree,
    join,
    radii,
    subdivide,
    tubes_of,
)

AIRWAY_RADIUS = 0.45  # lumen of the bronchiole that enters a lobule, mm
ARTERY_RADIUS = 0.4  # artery beside it, mm
VEIN_RADIUS = 0.38  # vein that leaves a territory of a lobule's size, mm
SMALLEST_AIRWAY = 0.2  # lumen radius where a bronchiole's wall dissolves into alveoli, mm
TIPS_PER_SIDE = 8  # a bush has 8 x 8 x 8 end points: one every 1.4 mm
BUSH_SCALE = 1 / TIPS_PER_SIDE  # cube root of 1/512: Murray's law from a lobule to its tips
LOBULE_MARGIN = 3.0  # a lobule's centre lies this deep under the pleura, mm
BUSH_MARGIN = 0.8  # and a bush's branches this deep, mm


@dataclass(frozen=True)
class RegionTubes:
    """The tubes that may show in a region."""

    # lumen, airway: airways by inner and by outer wall
    lumen: Tubes
    airway: Tubes
    vessels: Tubes  # arteries and veins


def wall_thickness(lumen_radius: np.ndarray) -> np.ndarray:
    """Airway wall in mm by lumen radius in mm."""
    return 0.05 + 0.22 * lumen_radius


class Vessels:
    """Trees of one patient; `region` gives the tubes near a box."""

    def __init__(self, seed: int, chest: ChestShape, lobules: Lattice) -> None:
        """Args: seed: the patient; chest: the lung's outline; lobules: lattice of lobules."""
        self.seed, self.chest, self.lobules = seed, chest, lobules
        # Veins drain territories whose middles are where lobules meet.
        self.drains = Lattice(seed, 35, lobules.pitch, lobules.jitter)
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
        self.airway_radii = radii(self.airway_tree, AIRWAY_RADIUS)
        self.artery_tree = self._artery(self.airway_tree, AIRWAY_RADIUS, ARTERY_RADIUS)
        lumen = tubes_of(self.airway_tree, self.airway_radii)
        artery = tubes_of(self.artery_tree, radii(self.artery_tree, ARTERY_RADIUS))
        vein = tubes_of(self.vein_tree, radii(self.vein_tree, VEIN_RADIUS))
        self.main_lumen = self._bend(lumen)
        self.main_vessels = self._bend(join([artery, vein]))

    def region(self, low: np.ndarray, high: np.ndarray) -> RegionTubes:
        """All tubes that come near the box low..high (mm, (3,) each)."""
        lumens = [self.main_lumen.near(low, high, 3.0)]
        vessels = [self.main_vessels.near(low, high, 3.0)]
        chosen = self._near(self.lobules, self.airway_cells, low, high)
        if len(chosen):
            roots = self.airway_tree.ends[self.airway_leaves[chosen]]
            bush = self._bush(self.lobules, self.airway_cells[chosen], roots)
            width = radii(bush, AIRWAY_RADIUS * BUSH_SCALE)
            lumen = self._keep(tubes_of(bush, width))
            lumens.append(self._bend(lumen.select(lumen.end_radii > SMALLEST_AIRWAY)))
            beside = self._artery(bush, AIRWAY_RADIUS * BUSH_SCALE, ARTERY_RADIUS * BUSH_SCALE)
            # The bush's artery starts where the main tree's ends.
            beside.ends[: len(chosen)] = self.artery_tree.ends[self.airway_leaves[chosen]]
            artery = tubes_of(beside, radii(beside, ARTERY_RADIUS * BUSH_SCALE))
            vessels.append(self._bend(self._keep(artery)))
        chosen = self._near(self.drains, self.vein_cells, low, high)
        if len(chosen):
            roots = self.vein_tree.ends[self.vein_leaves[chosen]]
            bush = self._bush(self.drains, self.vein_cells[chosen], roots)
            vein = tubes_of(bush, radii(bush, VEIN_RADIUS * BUSH_SCALE))
            vessels.append(self._bend(self._keep(vein)))
        lumen = join(lumens).near(low, high, 3.0)
        outer = Tubes(
            lumen.starts,
            lumen.ends,
            lumen.start_radii + wall_thickness(lumen.start_radii),
            lumen.end_radii + wall_thickness(lumen.end_radii),
        )
        return RegionTubes(lumen, outer, join(vessels).near(low, high, 3.0))

    def _grow(
        self, lattice: Lattice, root: np.ndarray, seed: int
    ) -> tuple[np.ndarray, Tree, np.ndarray]:
        """Cells of the lattice inside the lung (n, 3), the tree to them, each cell's branch."""
        cells = lattice.cells_in_box(np.full(3, -90.0), np.full(3, 90.0))
        centres = lattice.to_mm(lattice.places(cells).astype(np.float64))
        inside = self._depth(centres) < -LOBULE_MARGIN
        cells, centres = cells[inside], centres[inside]
        # The branch enters a lobule on the side of the hilum.
        inward = root - centres
        inward /= np.linalg.norm(inward, axis=1, keepdims=True)
        entries = centres + 0.3 * lattice.pitch * inward
        lower = fissure_distance(self.chest, *centres.T) > 0
        order = np.concatenate([np.flatnonzero(~lower), np.flatnonzero(lower)])
        tree, leaves = grow_tree(root, [entries[~lower], entries[lower]], seed)
        return cells[order], tree, leaves

    def _artery(self, airway: Tree, lumen_radius: float, artery_radius: float) -> Tree:
        lumen = radii(airway, lumen_radius)
        # No gap to the airway: both lie in one sheath.
        distance = lumen + wall_thickness(lumen) + 0.95 * radii(airway, artery_radius)
        phase = airway.ends @ (0.02, 0.03, 0.05) + self.seed
        direction = np.stack([np.cos(phase), np.sin(phase), 0.4 * np.ones_like(phase)], axis=1)
        return companion(airway, distance, direction)

    def _bush(self, lattice: Lattice, cells: np.ndarray, roots: np.ndarray) -> Tree:
        steps = np.arange(TIPS_PER_SIDE)
        inner = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        tips = cells[:, None, :] * TIPS_PER_SIDE + inner
        shifts = np.stack(
            [uniform(hash_words(self.seed, lattice.stream + 5 + a, tips)) for a in range(3)], -1
        )
        places = (tips + 0.15 + 0.7 * shifts) / TIPS_PER_SIDE
        return grow_bushes(roots, lattice.to_mm(places.astype(np.float64)))

    def _near(
        self, lattice: Lattice, cells: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """Indices of the cells whose bush could reach into the box."""
        reach = lattice.pitch * 1.6
        middles = lattice.to_mm(cells + 0.5)
        return np.flatnonzero(np.all((middles > low - reach) & (middles < high + reach), axis=1))

    def _keep(self, tubes: Tubes) -> Tubes:
        """Drop branches that would leave the lung or pass through the fissure."""
        inside = self._depth(tubes.ends) < -BUSH_MARGIN
        before = fissure_distance(self.chest, *tubes.starts.T)
        after = fissure_distance(self.chest, *tubes.ends.T)
        return tubes.select(inside & (before * after > 0))

    def _depth(self, points: np.ndarray) -> np.ndarray:
        return lung_depth(self.chest, points[:, 0], points[:, 1], points[:, 2])

    def _bend(self, tubes: Tubes) -> Tubes:
        """Bend straight tubes a little, all structures of one place alike."""
        pieces = subdivide(tubes, 2.5)
        return Tubes(
            pieces.starts + self._sway(pieces.starts),
            pieces.ends + self._sway(pieces.ends),
            pieces.start_radii,
            pieces.end_radii,
        )

    def _sway(self, points: np.ndarray) -> np.ndarray:
        amplitude = 0.45  # mm; wavelengths are about 10 to 30 mm
        waves = [np.sin(points @ self.waves + phase) for phase in self.phases]
        return amplitude * np.stack([wave.sum(axis=1) / np.sqrt(3) for wave in waves], axis=1)
