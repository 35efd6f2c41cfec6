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
        return self.select(self.touches(low, high, margin))

    def touches(self, low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
        """Which tubes' bounding boxes come within `margin` mm of the box low..high: bool (n,)."""
        reach = (np.maximum(self.start_radii, self.end_radii) + margin)[:, None]
        below = np.minimum(self.starts, self.ends) - reach <= high
        above = np.maximum(self.starts, self.ends) + reach >= low
        near: np.ndarray = np.all(below & above, axis=1)
        return near


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


Box = tuple[np.ndarray, np.ndarray]


def grow_bushes(
    roots: np.ndarray, targets: np.ndarray, box: Box | None = None
) -> tuple[Tree, np.ndarray]:
    """Grow many small trees at once, each by halving its territory.

    Args:
        roots: (m, 3) where each bush starts, mm.
        targets: (m, 2^k, 3) its end points, mm.
        box: two corners (3,) in mm; branches that lead nowhere near it are left out.

    Returns:
        One `Tree` with m root points first, then the branches level by level; and which bush each
        of its points belongs to with its number there, (n, 2).
    """
    bushes, points = targets.shape[:2]
    ends, parents, tips = [roots], [np.full(bushes, -1)], [np.full(bushes, points)]
    numbers = [np.stack([np.arange(bushes), np.zeros(bushes, np.int64)], axis=1)]
    # Of each group of targets that is still together: its bush and number, the branch that leads
    # to it and where that ends, and its targets.
    own = np.stack([np.arange(bushes), np.ones(bushes, np.int64)], axis=1)
    index, starts, groups = np.arange(bushes), roots, targets
    while True:
        count = groups.shape[1]
        if box is not None:
            low, high = (one(groups, axis=1) for one in (np.minimum.reduce, np.maximum.reduce))
            near = (np.minimum(low, starts) <= box[1]) & (np.maximum(high, starts) >= box[0])
            kept = near.all(axis=1)
            own, index, starts, groups = own[kept], index[kept], starts[kept], groups[kept]
        centres = groups.mean(axis=1)
        level = centres if count == 1 else starts + GROWTH * (centres - starts)
        first = sum(len(part) for part in ends)
        ends.append(level)
        parents.append(index)
        tips.append(np.full(len(level), count))
        numbers.append(own)
        if count == 1:
            tree = Tree(np.concatenate(ends), np.concatenate(parents), np.concatenate(tips))
            return tree, np.concatenate(numbers)
        order = np.argsort(_along_longest(groups), axis=1, kind="stable")[..., None]
        groups = np.take_along_axis(groups, order, axis=1).reshape(-1, count // 2, 3)
        starts = np.repeat(level, 2, axis=0)
        index = np.repeat(first + np.arange(len(level)), 2)
        own = np.repeat(own, 2, axis=0) * (1, 2) + np.tile([(0, 0), (0, 1)], (len(level), 1))


def _along_longest(clouds: np.ndarray) -> np.ndarray:
    """Coordinate of each point along its cloud's longest axis: (m, n, 3) -> (m, n)."""
    centred = clouds - clouds.mean(axis=1, keepdims=True)
    axes = np.linalg.eigh(np.swapaxes(centred, 1, 2) @ centred)[1][:, :, 2]
    # An eigenvector's sign is arbitrary and could differ between machines: fix it.
    largest = np.take_along_axis(axes, np.argmax(np.abs(axes), axis=1)[:, None], axis=1)
    return np.einsum("mna,ma->mn", centred, axes * np.sign(largest))


def radii(tree: Tree, radius: float, fed: int = 1, exponent: float = 3.0) -> np.ndarray:
    """Radius of each branch in mm: `radius` for one that feeds `fed` end points, and the sum of the
    daughters' radii to the power `exponent` is the parent's (3: Murray's law)."""
    widths: np.ndarray = radius * (tree.tips / fed) ** (1 / exponent)
    return widths


def tubes_of(tree: Tree, radius: np.ndarray) -> Tubes:
    """One tube per branch; it starts a little wider than it ends, no wider than its parent."""
    branches = np.flatnonzero(tree.parents >= 0)
    parents = tree.parents[branches]
    own = radius[branches]
    return Tubes(
        tree.ends[parents], tree.ends[branches], np.minimum(radius[parents], 1.25 * own), own
    )


def subdivide(tubes: Tubes, longest: float) -> tuple[Tubes, np.ndarray]:
    """Cut tubes into pieces no longer than `longest` mm, so that a bend can follow.

    Returns:
        The pieces, those of one tube behind each other, and the tube that each is a part of.
    """
    lengths = np.linalg.norm(tubes.ends - tubes.starts, axis=1)
    pieces = np.maximum(np.ceil(lengths / longest).astype(np.int64), 1)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    low, high = number / pieces[owner], (number + 1) / pieces[owner]
    run = tubes.ends[owner] - tubes.starts[owner]
    taper = (tubes.end_radii - tubes.start_radii)[owner]
    cut = Tubes(
        tubes.starts[owner] + low[:, None] * run,
        tubes.starts[owner] + high[:, None] * run,
        tubes.start_radii[owner] + low * taper,
        tubes.start_radii[owner] + high * taper,
    )
    return cut, owner


def beside(
    tubes: Tubes,
    distances: tuple[np.ndarray, np.ndarray],
    widths: tuple[np.ndarray, np.ndarray],
) -> Tubes:
    """Tubes that run beside others: the artery along the airway.

    The shift is across a tube's course, on the side of a slowly turning direction, so that
    neighbours lie on the same side.

    Args:
        tubes: to run beside.
        distances: (n,) mm from axis to axis, at the starts and at the ends.
        widths: (n,) radii of the new tubes in mm, likewise.
    """
    course = tubes.ends - tubes.starts
    course /= np.maximum(np.linalg.norm(course, axis=1, keepdims=True), 1e-9)
    starts = tubes.starts + distances[0][:, None] * _side(course, tubes.starts)
    ends = tubes.ends + distances[1][:, None] * _side(course, tubes.ends)
    return Tubes(starts, ends, *widths)


def _side(course: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Unit vectors across courses (n, 3) at places (n, 3), mm."""
    phase = places @ (0.02, 0.03, 0.05)
    turning = np.stack([np.cos(phase), np.sin(phase), np.full_like(phase, 0.4)], axis=1)
    side = np.cross(course, turning)
    return side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)


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
    origins = tubes.starts.astype(np.float32)
    runs = (tubes.ends - tubes.starts).astype(np.float32)
    squares = np.maximum(np.einsum("na,na->n", runs, runs), np.float32(1e-12))
    slopes = runs / squares[:, None]
    radius = tubes.start_radii.astype(np.float32)
    taper = tubes.end_radii.astype(np.float32) - radius
    for number in np.flatnonzero(np.all(np.array(first) < np.array(stop), axis=0)):
        spans = [slice(first[a][number], stop[a][number]) for a in range(3)]
        dx, dy, dz = (narrow[a][spans[a]] - origins[number, a] for a in range(3))
        dy, dz = dy[:, None], dz[:, None, None]
        fx, fy, fz = slopes[number]
        # Place along the axis, from 0 to 1 between the ends; and from there the distance:
        # |d - a run|^2 = d.d - 2 a d.run + a^2 run.run, with d.run = place run.run.
        place = dz * fz + (dy * fy + dx * fx)
        along = np.maximum(place, 0)
        np.minimum(along, 1, out=along)
        place *= -2
        place += along
        place *= along
        place *= squares[number]
        place += dz * dz + (dy * dy + dx * dx)
        np.maximum(place, 0, out=place)  # rounding
        np.sqrt(place, out=place)
        place -= radius[number]
        if taper[number]:
            along *= taper[number]
            place -= along
        here = distance[spans[2], spans[1], spans[0]]
        np.minimum(here, place, out=here)
    return distance
