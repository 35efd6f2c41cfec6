"""Distance to tubes on a grid, against the formula point by point."""

from __future__ import annotations

import numpy as np

from data.phantom.anatomy.tree import Tubes, tube_distance


def brute_force(tubes: Tubes, point: np.ndarray) -> float:
    best = np.inf
    for start, end, r0, r1 in zip(
        tubes.starts, tubes.ends, tubes.start_radii, tubes.end_radii, strict=True
    ):
        run = end - start
        along = np.clip((point - start) @ run / (run @ run), 0, 1)
        best = min(best, np.linalg.norm(point - start - along * run) - (r0 + along * (r1 - r0)))
    return float(best)


def test_distance_equals_the_formula_up_to_the_reach() -> None:
    generator = np.random.default_rng(0)
    tubes = Tubes(
        generator.uniform(0, 4, (6, 3)),
        generator.uniform(0, 4, (6, 3)),
        generator.uniform(0.3, 0.6, 6),
        generator.uniform(0.1, 0.3, 6),
    )
    z, y, x = np.linspace(0, 4, 9), np.linspace(0.1, 3.9, 11), np.linspace(-1, 5, 13)
    got = tube_distance(tubes, z, y, x, reach=0.5)
    expected = np.array(
        [[[brute_force(tubes, np.array([c, b, a])) for c in x] for b in y] for a in z]
    )
    near = expected < 0.5
    assert near.sum() > 50
    np.testing.assert_allclose(got[near], expected[near], atol=1e-5)
    assert np.all(got[~near] >= 0.5 - 1e-6)


def test_no_tubes_and_a_tube_without_length() -> None:
    axis = np.linspace(-1, 1, 5)
    none = Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    assert np.all(tube_distance(none, axis, axis, axis, 0.25) == np.float32(0.25))
    ball = Tubes(np.zeros((1, 3)), np.zeros((1, 3)), np.full(1, 0.7), np.full(1, 0.7))
    got = tube_distance(ball, axis, axis, axis, 2.0)
    assert np.isclose(got[2, 2, 2], -0.7)
    assert np.isclose(got[2, 2, 4], 0.3)
