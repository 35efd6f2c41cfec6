"""The lung's outline and all that lies around it: pleura, ribs, muscle, fat, mediastinum.

Coordinates in mm, origin at the middle of a right lung: x towards the patient's left (towards the
mediastinum), y towards the back, z towards the head, so that the usual picture (seen from the
feet) is the array as it is. Every function takes arrays x, y, z that broadcast together, so that
a grid is evaluated from its three axes.

CT numbers follow from densities (data/phantom/anatomy/tissues.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.phantom.anatomy.tissues import AIR, BLOOD, CORTICAL_BONE, FAT, MUSCLE, SKIN, SPONGY_BONE

HALF_WIDTH, HALF_DEPTH, HALF_HEIGHT = 49.0, 42.0, 85.0
"""Half axes of the lung in mm (x, y, z): a small adult's lower half of a right lung."""

PLEURA = 0.5  # pleura and endothoracic fascia, mm
WALL = 15.0  # chest wall at the side, mm


@dataclass(frozen=True)
class ChestShape:
    """What differs from patient to patient; drawn by `draw_chest`."""

    bumps: np.ndarray  # (4, 2) amplitude and phase (radian) of the outline's waves
    # notch_angle, notch_depth: where the mediastinum pushes in (radian) and how far (share)
    notch_angle: float
    notch_depth: float
    rib_phase: float  # shift of the ribs along their repeat, mm
    # fissure_height, fissure_bend: the oblique fissure's y at the middle (mm), and bend (1/mm)
    fissure_height: float
    fissure_bend: float


def draw_chest(generator: np.random.Generator) -> ChestShape:
    """Draw one patient's chest."""
    bumps = np.stack(
        [generator.uniform(-0.018, 0.018, 4), generator.uniform(0, 2 * np.pi, 4)], axis=1
    )
    return ChestShape(
        bumps=bumps,
        notch_angle=generator.uniform(-0.35, -0.05),
        notch_depth=generator.uniform(0.24, 0.32),
        rib_phase=generator.uniform(0, 24),
        fissure_height=generator.uniform(-6, 4),
        fissure_bend=generator.uniform(0.003, 0.006) * generator.choice([-1, 1]),
    )


def lung_depth(shape: ChestShape, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Distance to the lung's surface in mm, negative inside (within some % near the surface)."""
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    return radius - outline(shape, angle) * lung_scale(z)


def lung_scale(z: np.ndarray) -> np.ndarray:
    """How much narrower than at mid height the lung is at height z (mm); 0.1 to 1."""
    return np.sqrt(np.clip(1 - (z / HALF_HEIGHT) ** 2, 0.01, 1))


def outline(shape: ChestShape, angle: np.ndarray) -> np.ndarray:
    """Radius of the lung's outline in mm at mid height, by angle (0 = medial, pi/2 = back)."""
    notch = shape.notch_depth * np.exp(-(((angle - shape.notch_angle) / 0.6) ** 2))
    return rib_cage(shape, angle) * (1 - notch)


def rib_cage(shape: ChestShape, angle: np.ndarray) -> np.ndarray:
    """Radius in mm of the rib cage's inner side: the lung's outline without the mediastinum."""
    across = np.abs(np.cos(angle) / HALF_WIDTH) ** 2.2
    along = np.abs(np.sin(angle) / HALF_DEPTH) ** 2.2
    waves = sum(a * np.cos((k + 2) * angle + p) for k, (a, p) in enumerate(shape.bumps))
    # The lung is broad at the back and narrow in front.
    return (across + along) ** (-1 / 2.2) * (0.98 + waves + 0.05 * np.sin(angle))


def fissure_distance(shape: ChestShape, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance in mm to the oblique fissure; negative in front of it (upper lobes)."""
    surface = y - shape.fissure_height - shape.fissure_bend * (x * x - 600.0) + 1.1 * z
    return surface / np.sqrt(1 + 1.1**2 + (2 * shape.fissure_bend * x) ** 2)


def surroundings(
    shape: ChestShape, x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """CT number (HU, float32) of everything outside the lung.

    Args:
        shape: the patient's chest.
        x, y, z: positions in mm, broadcasting to the shape of `depth`.
        depth: `lung_depth` there; values inside the lung get those of the pleura.
    """
    angle, height = np.arctan2(y, x), lung_scale(z)
    back = np.broadcast_to(y > 0, np.broadcast(x, y).shape)
    # Along the midline side the rib cage runs straight on: front and back of the body.
    flat = np.where(back, *(rib_cage(shape, np.array(side * np.pi / 2)) for side in (1, -1)))
    cage = np.where(x < 0, np.hypot(x, y), np.abs(y))
    cage = cage - np.where(x < 0, rib_cage(shape, angle), flat) * height
    turn = np.mod(angle, 2 * np.pi)
    run = np.where(x < 0, turn * 42.0, np.where(back, 66.0 - x, 198.0 + x))  # mm along the wall
    outer = np.broadcast_to(cage > 0, depth.shape)
    values = np.empty(depth.shape, np.float32)
    # A small block mostly lies on one side only: leave the other side's work out.
    if outer.any():
        values[...] = _chest_wall(shape, run, z, cage)
    if not outer.all():
        np.copyto(values, _mediastinum(x, y, z, depth), where=~outer)
    values[depth < PLEURA] = MUSCLE
    vertebra = np.broadcast_to(np.hypot((x - 62.0) / 19.0, (y - 33.0) / 15.0), values.shape)
    values[vertebra < 1.0] = CORTICAL_BONE
    values[vertebra < 0.95] = SPONGY_BONE - 40
    return values


def _chest_wall(shape: ChestShape, run: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Layers from the rib cage's inside outwards: fat, muscle with ribs, muscle, fat, skin.

    The layers wander along the wall (`run`, mm from back to front), as muscles begin and end.
    """
    skin = WALL + 2.5 * np.cos(run / 30.0 + 1.0) + 1.0 * np.cos(run / 9.0)
    muscle = 10.0 + 2.0 * np.cos(run / 21.0 + 1.0)
    cleft = np.abs(depth - 8.2 - 0.6 * np.cos(run / 13.0)) < 0.35  # fat between muscle layers
    values = np.full(np.broadcast(run, z, depth).shape, MUSCLE, np.float32)
    values[depth < 1.1] = FAT + 20
    values[cleft | (depth > muscle)] = FAT
    values[depth > skin - 1.5] = SKIN
    values[depth > skin] = AIR
    height = np.mod(z + 0.42 * run + shape.rib_phase, 24.0) - 12.0  # ribs fall towards the front
    # 0.92: cosine of the rib's slope; a rib is 12 mm high and 6.5 mm thick.
    rib = np.hypot(height * 0.92 / 6.0, (depth - 4.6) / 3.2)
    values[rib < 1.0] = CORTICAL_BONE
    values[np.hypot(height * 0.92 / 5.1, (depth - 4.6) / 2.3) < 1.0] = SPONGY_BONE
    return values


def _mediastinum(x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Heart, oesophagus and a great vein in fat."""
    heart = np.hypot((x - 66.0) / 36.0, (y + 14.0 + 0.1 * z) / 33.0)
    gullet = np.hypot(x - 48.0, y - 18.0 + 0.05 * z) / 5.5
    vein = np.hypot(x - 42.0, y - 30.0) / 3.2
    soft = np.minimum(np.minimum(heart, gullet), vein) < 1.0
    return np.where(soft & (depth > 0.8), np.float32(BLOOD), np.float32(FAT))
