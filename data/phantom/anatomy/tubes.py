"""Distance from the points of a grid to the nearest of many tubes."""

from __future__ import annotations

import numpy as np

from data.phantom.anatomy.tree import Tubes


def tube_distance(
    tubes: Tubes, z: np.ndarray, y: np.ndarray, x: np.ndarray, reach: float
) -> np.ndarray:
    """Signed distance in mm to the surface of the union of `tubes`, negative inside.

    Args:
        tubes: round cones with rounded ends.
        z, y, x: ascending grid positions in mm.
        reach: farthest distance of interest, mm; beyond it the answer is `reach`.

    Returns:
        float32 (len(z), len(y), len(x)).
    """
    distance = np.full((len(z), len(y), len(x)), reach, np.float32)
    axes = (x, y, z)
    low = np.array([axis[0] for axis in axes])
    high = np.array([axis[-1] for axis in axes])
    tubes = tubes.near(low, high, reach)
    margin = (np.maximum(tubes.start_radii, tubes.end_radii) + reach)[:, None]
    box_low = np.minimum(tubes.starts, tubes.ends) - margin
    box_high = np.maximum(tubes.starts, tubes.ends) + margin
    first = [np.searchsorted(axis, box_low[:, a]) for a, axis in enumerate(axes)]
    stop = [np.searchsorted(axis, box_high[:, a]) for a, axis in enumerate(axes)]
    narrow = [axis.astype(np.float32) for axis in axes]
    for number in range(len(tubes.starts)):
        spans = [slice(first[a][number], stop[a][number]) for a in range(3)]
        if any(span.start >= span.stop for span in spans):
            continue
        start = tubes.starts[number].astype(np.float32)
        run = (tubes.ends[number] - tubes.starts[number]).astype(np.float32)
        dx = narrow[0][spans[0]] - start[0]
        dy = (narrow[1][spans[1]] - start[1])[:, None]
        dz = (narrow[2][spans[2]] - start[2])[:, None, None]
        square = np.float32(max(float(run @ run), 1e-12))
        along = dz * (run[2] / square) + (dy * (run[1] / square) + dx * (run[0] / square))
        np.clip(along, 0, 1, out=along)
        gap = np.square(dx - along * run[0])
        gap += np.square(dy - along * run[1])
        gap += np.square(dz - along * run[2])
        np.sqrt(gap, out=gap)
        taper = np.float32(tubes.end_radii[number] - tubes.start_radii[number])
        gap -= np.float32(tubes.start_radii[number])
        gap -= taper * along
        here = distance[spans[2], spans[1], spans[0]]
        np.minimum(here, gap, out=here)
    return distance
