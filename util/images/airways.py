"""Airways in cross-section: the area of the lumen, and the thickness of the wall.

Rays from the middle of the lumen cross the wall. Their mean, laid with the known inner side of the
wall on top of each other, rises from the lumen to the wall and falls to the parenchyma. On each
side of the wall's middle its width is its area over its height (above the mean of lumen or
parenchyma; the height is the mean over the known wall): of a sharp wall the distance to its edge,
and of a blurred one more, for blur keeps the area and lowers the height. Both are means, which
noise hardly shifts; where edges are looked for (full width at half maximum, Nakano et al., Am. J.
Respir. Crit. Care Med. 162 (2000) 1102-1108) it ends walls early and makes them look thin. **What
fools it**: walls thinner than the image resolves measure as wide as the point spread (Reinhardt et
al., IEEE TMI 16 (1997) 820-827), so that whatever sharpens edges wins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RAYS = 64
STEP = 0.5  # pixels from sample to sample along a ray
BEYOND = 0.75  # mm beyond the wall that a ray looks for its outer end
SMALLEST_RADIUS = 0.5  # mm of the lumen: a clinical pixel
LONGEST = 2.0  # ratio of the axes above which a lumen is cut along, not across
LEAST_RAYS = 0.5  # share of the rays that must end in parenchyma
Bools = NDArray[np.bool_]


class Airway(NamedTuple):
    """A cross-section that is known."""

    row: float  # of the middle, pixels
    column: float
    rays: NDArray[np.intp]  # those that cross wall and then parenchyma
    inner: NDArray[np.float64]  # mm, distance of the wall's inner side from the middle, of these
    lumen: float  # mm^2
    wall: float  # mm, mean thickness over these


def find_airways(lumen: Bools, wall: Bools, parenchyma: Bools, spacing: float) -> list[Airway]:
    """The cross-sections in a slice of labels, of those wholly inside it and cut across.

    Args:
        lumen, wall, parenchyma: (rows, columns).
        spacing: pixel size in mm.
    """
    numbers, _ = ndimage.label(lumen)
    found = []
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        one = numbers[box] == number
        area = float(np.count_nonzero(one)) * spacing**2
        if area < np.pi * SMALLEST_RADIUS**2:
            continue
        rows, columns = np.nonzero(one)
        middle = rows.mean() + box[0].start, columns.mean() + box[1].start
        whole = all(
            part.start > 0 and part.stop < n for part, n in zip(box, lumen.shape, strict=True)
        )
        if not whole or not lumen[round(middle[0]), round(middle[1])]:
            continue
        spread = np.linalg.eigvalsh(np.cov(rows, columns))
        if spread[1] > LONGEST**2 * spread[0]:
            continue
        reach = 3 * np.sqrt(area / np.pi) + BEYOND
        along = np.arange(0, reach, STEP * spacing)
        kinds = np.select([lumen, wall, parenchyma], [1, 2, 3], 0)
        seen = _samples(kinds, middle, np.arange(RAYS), np.tile(along, (RAYS, 1)) / spacing, 0)
        ends = [_crossing(ray, along) for ray in seen]
        rays = np.flatnonzero([end is not None for end in ends])
        if len(rays) < LEAST_RAYS * RAYS:
            continue
        inner, outer = np.array([ends[ray] for ray in rays]).T
        found.append(Airway(*middle, rays, inner, area, float(np.mean(outer - inner))))
    return found


def measure_airway(image: NDArray[Any], airway: Airway, spacing: float) -> tuple[float, float]:
    """Lumen area in mm^2 and wall thickness in mm of a known airway in an image.

    Args:
        image: (rows, columns), HU.
        airway: where.
        spacing: pixel size in mm.
    """
    offsets = np.arange(-airway.inner.min(), airway.wall + BEYOND, STEP * spacing)
    places = (airway.inner[:, None] + offsets) / spacing
    middle = (airway.row, airway.column)
    samples = _samples(np.asarray(image, np.float32), middle, airway.rays, places, 1)
    profile = samples.mean(axis=0)
    lumen_end, wall_end = -airway.inner.min() / 2, airway.wall + BEYOND / 2
    lumen = float(profile[offsets < lumen_end].mean())
    wall = float(profile[(offsets >= 0) & (offsets <= airway.wall)].mean())
    parenchyma = float(profile[offsets > wall_end].mean())
    middle_of_wall = airway.wall / 2
    inside = (offsets >= lumen_end) & (offsets <= middle_of_wall)
    outside = (offsets > middle_of_wall) & (offsets <= wall_end)
    step = STEP * spacing
    inward = _width(profile[inside] - lumen, wall - lumen, step)
    outward = _width(profile[outside] - parenchyma, wall - parenchyma, step)
    inner = middle_of_wall - inward
    radius = float(airway.inner.mean())
    return airway.lumen * (1 + inner / radius) ** 2, inward + outward


def _samples(
    image: NDArray[Any],
    middle: tuple[float, float],
    rays: NDArray[np.intp],
    places: NDArray[np.float64],
    order: int,
) -> NDArray[Any]:
    """Values (rays, samples) of an image on rays around a middle; `places` along them in pixels."""
    angles = rays[:, None] * 2 * np.pi / RAYS
    rows, columns = middle[0] + np.sin(angles) * places, middle[1] + np.cos(angles) * places
    values: NDArray[Any] = ndimage.map_coordinates(
        image, np.stack([rows, columns]), order=order, mode="nearest"
    )
    return values


def _crossing(kinds: NDArray[Any], along: NDArray[np.float64]) -> tuple[float, float] | None:
    """Distances at which a ray of labels enters and leaves the wall towards parenchyma."""
    beyond = np.flatnonzero(kinds != 1)
    if beyond.size == 0 or kinds[beyond[0]] != 2:
        return None
    inner = int(beyond[0])
    after = np.flatnonzero(kinds[inner:] != 2)
    if after.size == 0:
        return None
    outer = inner + int(after[0])
    clear = kinds[outer : outer + int(BEYOND / (along[1] - along[0]))]
    return (float(along[inner]), float(along[outer])) if np.all(clear == 3) else None


def _width(profile: NDArray[Any], height: float, step: float) -> float:
    """Area under half a wall over its height, at most as far as it was looked for."""
    reach = len(profile) * step
    if height <= 0:  # nothing stands out
        return reach
    return float(np.clip(profile.sum() * step / height, 0, reach))
