"""Branching trees: every end point fed, Murray's law, continuous tubes."""

from __future__ import annotations

import numpy as np
import pytest

from data.phantom.anatomy.tree import (
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


@pytest.fixture(scope="module")
def lobes() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.uniform(5, 30, (40, 3)), generator.uniform(-30, -5, (25, 3))]


def children_tips(tree: Tree) -> np.ndarray:
    total = np.zeros(len(tree.tips), np.int64)
    np.add.at(total, tree.parents[tree.parents >= 0], tree.tips[tree.parents >= 0])
    return total


def test_tree_reaches_every_end_point(lobes: list[np.ndarray]) -> None:
    tree, leaves = grow_tree(np.zeros(3), lobes, 1)
    np.testing.assert_allclose(tree.ends[leaves], np.concatenate(lobes))
    assert len(np.unique(leaves)) == 65
    assert np.all(tree.tips[leaves] == 1)
    assert tree.parents[0] == -1
    assert np.all(tree.parents[1:] < np.arange(1, len(tree.parents)))
    inner = children_tips(tree)
    assert np.array_equal(inner[inner > 0], tree.tips[inner > 0])


def test_no_branch_feeds_two_lobes(lobes: list[np.ndarray]) -> None:
    tree, leaves = grow_tree(np.zeros(3), lobes, 1)
    owners: dict[int, set[bool]] = {}
    for number, leaf in enumerate(leaves):
        branch = int(leaf)
        while branch > 1:
            owners.setdefault(branch, set()).add(number < 40)
            branch = int(tree.parents[branch])
    assert all(len(sides) == 1 for sides in owners.values())


def test_tree_repeats_by_seed(lobes: list[np.ndarray]) -> None:
    first, second, other = (grow_tree(np.zeros(3), lobes, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.ends, second.ends)
    assert not np.array_equal(first.ends, other.ends)


def test_bushes_end_at_their_targets_and_do_not_depend_on_each_other() -> None:
    generator = np.random.default_rng(1)
    roots, targets = generator.normal(size=(5, 3)), generator.uniform(0, 9, (5, 64, 3))
    tree, numbers = grow_bushes(roots, targets)
    assert len(tree.ends) == len(numbers) == 5 + 5 * (2 * 64 - 1)
    tips = tree.ends[tree.tips == 1]
    for bush in range(5):
        own = {tuple(np.round(tip, 9)) for tip in targets[bush]}
        assert own == {tuple(np.round(tip, 9)) for tip in tips[numbers[tree.tips == 1, 0] == bush]}
    assert np.all(tree.parents[5:] < np.arange(5, len(tree.parents)))
    alone, _ = grow_bushes(roots[2:3], targets[2:3])
    np.testing.assert_allclose(alone.ends[1], tree.ends[5 + 2])
    assert len({tuple(row) for row in numbers}) == len(numbers)


def test_bushes_near_a_box_are_those_of_the_whole() -> None:
    generator = np.random.default_rng(3)
    roots, targets = generator.uniform(0, 9, (4, 3)), generator.uniform(0, 9, (4, 64, 3))
    whole, numbers = grow_bushes(roots, targets)
    box = (np.full(3, 2.0), np.full(3, 4.0))
    part, kept = grow_bushes(roots, targets, box)
    place = {tuple(row): end for row, end in zip(numbers, whole.ends, strict=True)}
    for row, end in zip(kept, part.ends, strict=True):
        np.testing.assert_array_equal(place[tuple(row)], end)
    assert 20 < len(kept) < 0.6 * len(numbers)
    # Nothing that touches the box is missing.
    branches = np.flatnonzero(whole.parents >= 0)
    ends, starts = whole.ends[branches], whole.ends[whole.parents[branches]]
    touches = np.all((np.minimum(ends, starts) <= 4) & (np.maximum(ends, starts) >= 2), axis=1)
    assert {tuple(row) for row in numbers[branches[touches]]} <= {tuple(row) for row in kept}


def test_murray_law_and_taper(lobes: list[np.ndarray]) -> None:
    tree, _ = grow_tree(np.zeros(3), lobes, 3)
    radius = radii(tree, 0.4)
    assert radius[0] == pytest.approx(0.4 * 65 ** (1 / 3))
    cubes = np.zeros(len(radius))
    np.add.at(cubes, tree.parents[1:], radius[1:] ** 3)
    inner = cubes > 0
    np.testing.assert_allclose(cubes[inner], radius[inner] ** 3)
    np.testing.assert_allclose(radii(tree, 0.4, 8), radius / 2)
    squares = radii(tree, 0.4, 1, 2.0) ** 2
    np.testing.assert_allclose(squares, 0.16 * tree.tips)
    tubes = tubes_of(tree, radius)
    assert np.all(tubes.start_radii >= tubes.end_radii)
    assert np.all(tubes.start_radii <= radius[tree.parents[1:]])
    np.testing.assert_array_equal(tubes.starts, tree.ends[tree.parents[1:]])


def test_beside_runs_at_the_given_distance_across_the_course() -> None:
    tubes = Tubes(np.zeros((1, 3)), np.array([[0.0, 0, 10]]), np.ones(1), np.ones(1))
    artery = beside(tubes, (np.full(1, 2.0), np.full(1, 1.5)), (np.full(1, 0.8), np.full(1, 0.6)))
    for moved, distance in ((artery.starts, 2.0), (artery.ends - (0, 0, 10), 1.5)):
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), distance)
        np.testing.assert_allclose(moved @ (0, 0, 1), 0, atol=1e-12)
    assert (artery.start_radii[0], artery.end_radii[0]) == (0.8, 0.6)


def test_subdivide_keeps_course_and_radii() -> None:
    tube = Tubes(np.zeros((1, 3)), np.array([[6.0, 8.0, 0.0]]), np.array([2.0]), np.array([1.0]))
    pieces, owner = subdivide(tube, 2.5)
    assert owner.tolist() == [0] * 4
    np.testing.assert_allclose(pieces.ends[:-1], pieces.starts[1:])
    np.testing.assert_allclose(pieces.ends[-1], tube.ends[0])
    np.testing.assert_allclose(pieces.start_radii, [2, 1.75, 1.5, 1.25])
    np.testing.assert_allclose(pieces.end_radii, [1.75, 1.5, 1.25, 1])


def test_near_and_join() -> None:
    left = Tubes(np.zeros((1, 3)), np.ones((1, 3)), np.ones(1), np.ones(1))
    right = Tubes(np.full((1, 3), 50.0), np.full((1, 3), 51.0), np.ones(1), np.ones(1))
    both = join([left, right])
    assert len(both.starts) == 2
    found = both.near(np.full(3, 2.5), np.full(3, 4.0), margin=1.0)
    np.testing.assert_array_equal(found.starts, left.starts)
    assert len(both.near(np.full(3, 2.5), np.full(3, 4.0), margin=0.1).starts) == 0
