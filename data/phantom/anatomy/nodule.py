"""One nodule: a bumpy ball with spicules, solid or of ground glass.

Size and margin: Fleischner Society glossary, Radiology 246 (2008) 697-722 (a nodule is at most
30 mm wide; spicules radiate from it); CT numbers of ground glass between about -750 and -300 HU,
where vessels stay visible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.phantom.anatomy.disease import NoduleKind
from data.phantom.anatomy.smooth_field import SmoothField
from data.phantom.anatomy.tree import Tubes, tube_distance

SPICULES = (6, 12)  # fewest and most
WAVES, ROUGHNESS = 0.06, 0.12  # of the surface: share of the radius, and mm
OPACITY = {"solid": 1.0, "ground_glass": 0.4}  # share of the airspaces that is filled


@dataclass(frozen=True)
class Nodule:
    """A nodule in the lung."""

    centre: np.ndarray  # (x, y, z) in mm
    radius: float  # mean radius of the body, mm
    kind: NoduleKind  # solid or ground_glass
    bumps: np.ndarray  # (5, 3) directions and frequencies of the surface's waves
    spicules: Tubes  # thin cones from the surface outwards
    rough: SmoothField  # of the surface

    @property
    def opacity(self) -> float:
        """How much of the way to soft tissue the lung goes inside."""
        return OPACITY[self.kind]

    @property
    def reach(self) -> float:
        """No part lies farther from the centre, mm."""
        ends = np.linalg.norm(self.spicules.ends - self.centre, axis=1)
        return float(max(self.radius * 1.5, ends.max(initial=0) + 0.1))

    def distance(self, z: np.ndarray, y: np.ndarray, x: np.ndarray, step: float) -> np.ndarray:
        """Signed distance to the surface in mm, negative inside; `step` or more is far away.

        Args:
            z, y, x: ascending grid positions in mm.
            step: farthest distance of interest, mm.

        Returns:
            float32 (len(z), len(y), len(x)).
        """
        grid = (x, y[:, None], z[:, None, None])
        offset = [axis - centre for axis, centre in zip(grid, self.centre, strict=True)]
        if any(np.abs(axis).min() > self.reach + step for axis in offset):
            return np.full((len(z), len(y), len(x)), step, np.float32)
        distance = np.sqrt(sum(np.square(axis) for axis in offset))
        unit = [axis / np.maximum(distance, 1e-6) for axis in offset]
        waves = [
            np.sin(sum(w * axis for w, axis in zip(bump, unit, strict=True)) + number)
            for number, bump in enumerate(self.bumps)
        ]
        body = distance - np.float32(self.radius) * (1 + WAVES * sum(waves))
        body += np.float32(ROUGHNESS) * self.rough.on_grid(z, y, x)
        return np.minimum(body, tube_distance(self.spicules, z, y, x, step)).astype(np.float32)


def draw_nodule(generator: np.random.Generator, centre: np.ndarray, kind: NoduleKind) -> Nodule:
    """Draw size, surface and spicules of a nodule at `centre`."""
    radius = float(generator.uniform(3.0, 4.5))
    bumps = generator.normal(size=(5, 3)) * 1.8
    count = int(generator.integers(*SPICULES))
    course = generator.normal(size=(count, 3))
    course /= np.linalg.norm(course, axis=1, keepdims=True)
    length = generator.uniform(1.5, 5.0, (count, 1))
    spicules = Tubes(
        starts=centre + 0.8 * radius * course,
        ends=centre + (radius + length) * course,
        start_radii=generator.uniform(0.25, 0.45, count),
        end_radii=np.full(count, 0.04),
    )
    rough = SmoothField(int(generator.integers(1 << 31)), 68, 0.7)
    return Nodule(centre, radius, kind, bumps, spicules, rough)
