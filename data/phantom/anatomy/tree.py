"""Branching trees that fill a space: airways with the arteries beside them, and veins.

The rule is that of Tawhai, Pullan and Hunter, Ann. Biomed. Eng. 28 (2000) 793-802: a branch
grows part of the way to the centre of the territory that it feeds, the territory is split in
two, and so on down to single end points. Radii follow Murray's law (Proc. Natl. Acad. Sci. 12
(1926) 207-214): the cube of a parent's radius is the sum of its daughters' cubes. A tree ends as
tubes, and `tube_distance` tells how far a grid's points are from the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

GROWTH = 0.42  # share of the way to the territory's centre; Tawhai et al. use 0.4


@dataclass(frozen=True)
class Tree:
    """Branches of a tree, parents before children."""

    ends: np.ndarray  # (n, 3) far end of each branch in mm. Entry 0 is the root point itself.
    parents: np.ndarray  # (n,) index of the parent branch, -1 for the root point
    tips: np.ndarray  # (n,) number of end points fed by the branch


@dataclass(frozen=True)
class Tubes:
    """Round tubes, tapering from start to end."""

    # starts, ends: (n, 3) in mm
    starts: np.ndarray
    ends: np.ndarray
    # start_radii, end_radii: (n,) in mm
    start_radii: np.ndarray
    end_radii: np.ndarray

    def select(self, chosen: np.ndarray) -> Tubes:
        """The tubes where `chosen` (n,) is true."""
        return Tubes(
            self.starts[chosen],
            self.ends[chosen],
            self.start_radii[chosen],
            self.end_radii[chosen],
        )

    def near(self, low: np.ndarray, high: np.ndarray, margin: float) -> Tubes:
        """The tubes whose bounding box comes within `margin` mm of the box low..high (mm)."""
        reach = (np.maximum(self.start_radii, self.end_radii) + margin)[:, None]
        below = np.minimum(self.starts, self.ends) - reach <= high
        above = np.maximum(self.starts, self.ends) + reach >= low
        return self.select(np.all(below & above, axis=1))


def join(parts: list[Tubes]) -> Tubes:
    """All tubes of `parts` in one."""
    return Tubes(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.start_radii for part in parts]),
        np.concatenate([part.end_radii for part in parts]),
    )


def grow_tree(root: np.ndarray, groups: list[np.ndarray], seed: int) -> tuple[Tree, np.ndarray]:
    """Grow one tree from `root` (3,) to every end point of `groups` (lobes, (n, 3) each, mm).

    The first branching parts the groups, so that no branch feeds two lobes.

    Returns:
        The tree, and the branch index of each end point in the order of the groups.
    """
    generator = np.random.default_rng(seed)
    targets = np.concatenate(groups)
    ends, parents, tips = [root], [-1], [len(targets)]
    leaves = np.zeros(len(targets), np.int64)
    first = np.cumsum([0, *[len(group) for group in groups]])
    stem = root + GROWTH * 0.5 * (targets.mean(axis=0) - root)
    ends.append(stem)
    parents.append(0)
    tips.append(len(targets))
    waiting = [(1, np.arange(a, b)) for a, b in pairwise(first) if b > a]
    while waiting:
        parent, owned = waiting.pop()
        here = ends[parent]
        centre = targets[owned].mean(axis=0)
        end = targets[owned[0]] if len(owned) == 1 else here + GROWTH * (centre - here)
        branch = len(ends)
        ends.append(end)
        parents.append(parent)
        tips.append(len(owned))
        if len(owned) == 1:
            leaves[owned[0]] = branch
            continue
        order = owned[np.argsort(_along_longest(targets[owned][None])[0], kind="stable")]
        # Uneven splits: daughters of one branch differ in size (Weibel's irregular dichotomy).
        cut = round(len(order) * generator.uniform(0.3, 0.7))
        cut = min(max(cut, 1), len(order) - 1)
        waiting += [(branch, order[:cut]), (branch, order[cut:])]
    return Tree(np.array(ends), np.array(parents), np.array(tips)), leaves


def grow_bushes(roots: np.ndarray, targets: np.ndarray) -> Tree:
    """Grow many small trees at once, each by halving its territory.

    Args:
        roots: (m, 3) where each bush starts, mm.
        targets: (m, 2^k, 3) its end points, mm.

    Returns:
        One `Tree` with m root points first, then the branches level by level.
    """
    bushes, points = targets.shape[:2]
    ends, parents = [roots], [np.full(bushes, -1)]
    tips = [np.full(bushes, points)]
    starts, index = roots[:, None, :], np.arange(bushes)[:, None]
    groups = targets[:, None]  # (bushes, groups, points per group, 3)
    while True:
        count = groups.shape[2]
        centres = groups.mean(axis=2)
        level = centres if count == 1 else starts + GROWTH * (centres - starts)
        first = sum(len(part) for part in ends)
        ends.append(level.reshape(-1, 3))
        parents.append(index.reshape(-1))
        tips.append(np.full(level.shape[0] * level.shape[1], count))
        if count == 1:
            return Tree(np.concatenate(ends), np.concatenate(parents), np.concatenate(tips))
        along = _along_longest(groups.reshape(-1, count, 3)).reshape(groups.shape[:3])
        order = np.argsort(along, axis=2, kind="stable")[..., None]
        groups = np.take_along_axis(groups, order, axis=2)
        groups = groups.reshape(bushes, -1, count // 2, 3)
        own = first + np.arange(level.shape[0] * level.shape[1]).reshape(level.shape[:2])
        starts, index = np.repeat(level, 2, axis=1), np.repeat(own, 2, axis=1)


def _along_longest(clouds: np.ndarray) -> np.ndarray:
    """Coordinate of each point along its cloud's longest axis: (m, n, 3) -> (m, n)."""
    centred = clouds - clouds.mean(axis=1, keepdims=True)
    axes = np.linalg.eigh(np.swapaxes(centred, 1, 2) @ centred)[1][:, :, 2]
    # An eigenvector's sign is arbitrary and could differ between machines: fix it.
    largest = np.take_along_axis(axes, np.argmax(np.abs(axes), axis=1)[:, None], axis=1)
    return np.einsum("mna,ma->mn", centred, axes * np.sign(largest))


def radii(tree: Tree, tip_radius: float) -> np.ndarray:
    """Radius of each branch in mm by Murray's law, `tip_radius` for a single end point."""
    return tip_radius * np.cbrt(tree.tips.astype(np.float64))


def tubes_of(tree: Tree, radius: np.ndarray) -> Tubes:
    """One tube per branch; it starts a little wider than it ends, no wider than its parent."""
    branches = np.flatnonzero(tree.parents >= 0)
    parents = tree.parents[branches]
    own = radius[branches]
    return Tubes(
        tree.ends[parents], tree.ends[branches], np.minimum(radius[parents], 1.25 * own), own
    )


def companion(tree: Tree, distance: np.ndarray, directions: np.ndarray) -> Tree:
    """The same tree moved sideways by `distance` (n,) mm: the artery beside the airway.

    The shift of a branch is across its own course, on the side of `directions` (n, 3) unit
    vectors (a slowly varying field keeps neighbours on the same side).
    """
    starts = np.where(tree.parents[:, None] >= 0, tree.ends[tree.parents], tree.ends - 1.0)
    course = tree.ends - starts
    course /= np.maximum(np.linalg.norm(course, axis=1, keepdims=True), 1e-9)
    side = np.cross(course, directions)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    return Tree(tree.ends + distance[:, None] * side, tree.parents, tree.tips)


def subdivide(tubes: Tubes, longest: float) -> Tubes:
    """Cut tubes into pieces no longer than `longest` mm, so that a bend can follow."""
    lengths = np.linalg.norm(tubes.ends - tubes.starts, axis=1)
    pieces = np.maximum(np.ceil(lengths / longest).astype(np.int64), 1)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    low, high = number / pieces[owner], (number + 1) / pieces[owner]
    run = tubes.ends[owner] - tubes.starts[owner]
    taper = (tubes.end_radii - tubes.start_radii)[owner]
    return Tubes(
        tubes.starts[owner] + low[:, None] * run,
        tubes.starts[owner] + high[:, None] * run,
        tubes.start_radii[owner] + low * taper,
        tubes.start_radii[owner] + high * taper,
    )


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
