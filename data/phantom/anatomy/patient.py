"""The digital lung of one patient: CT number as a function of position in mm.

Nothing here knows of voxels or scanners. The same place holds the same tissue whatever the
resolution, which is what a real pair of scanners would see; data/phantom/render.py looks.
"""

from __future__ import annotations

import numpy as np

from data.phantom.anatomy.chest import (
    draw_chest,
    fissure_distance,
    lung_depth,
    outline,
    surroundings,
)
from data.phantom.anatomy.disease import HEALTHY, Disease, LobuleDisease
from data.phantom.anatomy.foam import BLEND, Foam
from data.phantom.anatomy.lattice import Lattice
from data.phantom.anatomy.nodule import draw_nodule
from data.phantom.anatomy.tissues import AIR, AIRWAY_WALL, BLOOD, MUSCLE, SEPTUM, SOLID_NODULE
from data.phantom.anatomy.tree import tube_distance
from data.phantom.anatomy.vessels import RegionTubes, Vessels
from data.truth_case import LABELS
from util.errors import UserError

VERSION = 3
"""Raise it when the same seed gives other voxels, so that old folders are not taken as new."""

DUCT_REACH = 0.06  # mm around ducts where septa have their entrance rings
FISSURE = 0.18  # thickness of the two layers of pleura, mm
LOBULE_PITCH = 11.0  # mm; secondary lobules measure 10 to 25 mm, the smaller ones suit this lung


class Anatomy:
    """One patient.

    Attributes:
        seed: chooses the patient.
        disease: what is wrong with the lung.
        specimen: whether it is an excised one, whose vessels may be collapsed or filled with air.
        chest, lobules, foam, vessels: the parts.
        level: z in mm of the clinical slices' middle.
        nodule: at that level, or None.
    """

    def __init__(self, seed: int, disease: Disease = HEALTHY, specimen: bool = False) -> None:
        self.seed = seed
        self.disease = disease
        self.specimen = specimen
        generator = np.random.default_rng([seed, 40])
        self.chest = draw_chest(generator)
        self.lobules = Lattice(seed, 31, LOBULE_PITCH, 0.5)
        ill = LobuleDisease(seed, disease, self._near_pleura)
        self.foam = Foam(seed, self.lobules, ill=ill)
        self.vessels = Vessels(seed, self.chest, self.lobules, self.foam, specimen)
        self.level = float(generator.uniform(-14, -6))
        # In the outer half of the lung, where vessels are thin and a nodule stands alone.
        angle = float(generator.choice([-1, 1]) * generator.uniform(1.8, 2.8))
        radius = float(outline(self.chest, np.array(angle))) * generator.uniform(0.55, 0.72)
        height = self.level + generator.uniform(-1, 1)
        place = np.array([radius * np.cos(angle), radius * np.sin(angle), height])
        kind = disease.nodule
        self.nodule = None if kind == "none" else draw_nodule(generator, place, kind)

    def _near_pleura(self, points: np.ndarray) -> np.ndarray:
        """1 at the pleura, falling to 0.1 in the lung's middle: where fibrosis begins."""
        depth = lung_depth(self.chest, *points.T)
        return np.clip(1 + depth / 20, 0.1, 1)

    def depth(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Distance to the lung's surface on a grid, mm, negative inside: (nz, ny, nx)."""
        depth = lung_depth(self.chest, x, y[:, None], z[:, None, None])
        return np.broadcast_to(depth, (len(z), len(y), len(x)))

    def tubes(self, low: np.ndarray, high: np.ndarray) -> RegionTubes:
        """Airways and vessels near the box low..high (x, y, z in mm), to give to `hounsfield`."""
        return self.vessels.region(low, high)

    def hounsfield(
        self, tubes: RegionTubes, z: np.ndarray, y: np.ndarray, x: np.ndarray
    ) -> np.ndarray:
        """CT number at the points of a grid of a few mm; edges are smoothed over BLEND.

        Args:
            tubes: from `tubes` for a box that holds the grid.
            z, y, x: ascending positions in mm.

        Returns:
            HU, float32 (len(z), len(y), len(x)), before any blur or noise.
        """
        z, y, x = (axis.astype(np.float32) for axis in (z, y, x))
        depth = self.depth(z, y, x)
        inside = depth < 0
        grid = (x, y[:, None], z[:, None, None])
        if inside.all():
            values = np.zeros(depth.shape, np.float32)
        else:
            values = surroundings(self.chest, *grid, depth)
        lumen = tube_distance(tubes.lumen, z, y, x, BLEND)
        if inside.any():
            duct = tube_distance(tubes.ducts, z, y, x, DUCT_REACH)
            tissue = self.foam.tissue_fraction(z, y, x, inside & (lumen > -BLEND), duct)
            values[inside] = AIR + tissue[inside] * np.float32(SEPTUM - AIR)
            self._lay_sheets(values, inside, z, y, x)
        _blend(values, BLOOD, tube_distance(tubes.vessels, z, y, x, BLEND))
        _blend(values, AIR, tube_distance(tubes.emptied, z, y, x, BLEND))
        _blend(values, AIRWAY_WALL, tube_distance(tubes.airway, z, y, x, BLEND))
        _blend(values, AIR, lumen)
        return values

    def _lay_sheets(
        self, values: np.ndarray, inside: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray
    ) -> None:
        """The fissure between the lobes, and the nodule; in place, within the lung only."""
        grid = (x, y[:, None], z[:, None, None])
        fissure = np.abs(fissure_distance(self.chest, *grid)) - FISSURE / 2
        _blend(values, MUSCLE, np.where(inside, fissure, BLEND))
        if self.nodule is not None:
            nodule = np.where(inside, self.nodule.distance(z, y, x, BLEND), BLEND)
            _blend(values, SOLID_NODULE, nodule, self.nodule.opacity)

    def labels(self, tubes: RegionTubes, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """What the points of a grid lie in; arguments as for `hounsfield`.

        Returns:
            uint8 (len(z), len(y), len(x)): see LABELS.
        """
        near = 0.5  # mm; only the sign counts
        labels = np.where(self.depth(z, y, x) < 0, np.uint8(LABELS["parenchyma"]), np.uint8(0))
        inside = labels > 0
        grid = (x, y[:, None], z[:, None, None])
        fissure = np.abs(fissure_distance(self.chest, *grid)) < FISSURE / 2
        labels[inside & (fissure | self.foam.in_septum(z, y, x, inside))] = LABELS["septum"]
        if self.nodule is not None:
            labels[inside & (self.nodule.distance(z, y, x, near) < 0)] = LABELS["nodule"]
        labels[inside & (tube_distance(tubes.vessels, z, y, x, near) < 0)] = LABELS["vessel"]
        labels[inside & (tube_distance(tubes.airway, z, y, x, near) < 0)] = LABELS["airway"]
        labels[inside & (tube_distance(tubes.lumen, z, y, x, near) < 0)] = LABELS["lumen"]
        return labels

    def micro_centre(self, extent: np.ndarray) -> np.ndarray:
        """Middle (x, y, z) in mm of a micro-CT specimen of `extent` (x, y, z) mm.

        The specimen lies wholly in lung, away from the nodule, around an airway of about 1 mm
        radius.

        Raises:
            UserError: no place in the lung holds a specimen of that size.
        """
        places, radii = self.vessels.airway_tree.ends, self.vessels.airway_radii
        signs = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        points = places[:, None, :] + signs * extent / 2
        deep = lung_depth(self.chest, *np.moveaxis(points, -1, 0)).max(axis=1) < -1.5
        if self.nodule is not None:
            apart = np.abs(places - self.nodule.centre) - extent / 2
            deep &= apart.max(axis=1) > self.nodule.reach
        # Specimens come from the periphery: the largest airway in the field decides.
        held = np.abs(places[:, None, :] - places[None, :, :]) < extent / 2 + 2.0
        largest = np.where(held.all(axis=2), radii[None, :], 0).max(axis=1)
        fits = np.flatnonzero(deep)
        if len(fits) == 0:
            words = " x ".join(f"{length:g}" for length in extent)
            raise UserError(
                f"a micro-CT field of view of {words} mm does not fit in the phantom's lung: "
                "give fewer or smaller voxels (32 x 32 x 1 mm fits)"
            )
        return places[fits[np.argmin(np.abs(largest[fits] - 1.0) + np.abs(radii[fits] - 1.0))]]


def _blend(values: np.ndarray, tissue: float, distance: np.ndarray, opacity: float = 1.0) -> None:
    """Lay tissue over `values` in place where `distance` to its surface is negative.

    The share of tissue goes from `opacity` to 0 over BLEND across the surface.
    """
    share = np.clip(0.5 - distance / np.float32(BLEND), 0, 1, dtype=np.float32)
    values += np.float32(opacity) * share * (np.float32(tissue) - values)
