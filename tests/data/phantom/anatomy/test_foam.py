"""Alveolar walls: right by brute force, physiological in size, a pure function of position."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from data.phantom.anatomy.foam import BLEND, Foam, FoamShape, slab_coverage
from data.phantom.anatomy.lattice import Lattice

LOBULES = Lattice(1, 31, 11.0, 0.5)
PLAIN = FoamShape(
    wall_spread=0, capillaries=0, bends=0, waves=0, gradient=0, patchiness=0, septum_share=0
)
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]


def grid(side_mm: float, step: float, corner: tuple[float, float, float]) -> Axes:
    """Axes (z, y, x) of a cube whose corner (x, y, z) is given."""
    axis = np.arange(round(side_mm / step)) * step
    return corner[2] + axis, corner[1] + axis, corner[0] + axis


def points_of(axes: Axes) -> np.ndarray:
    """Points (n, 3: x, y, z) of a grid."""
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)


def test_slab_coverage_known_answers() -> None:
    thick, thin = np.float32(0.1), np.float32(BLEND / 4)
    distance = np.array([0.0, 0.05, 0.05 + BLEND / 2, 1.0], np.float32)
    np.testing.assert_allclose(slab_coverage(distance, thick), [1, 0.5, 0, 0], atol=1e-4)
    # A wall thinner than the window fills its share of it.
    np.testing.assert_allclose(slab_coverage(np.zeros(1, np.float32), thin), [0.25], rtol=1e-5)


def test_slab_coverage_keeps_the_volume() -> None:
    distance = np.abs(np.arange(-2000, 2000) * 1e-4).astype(np.float32)
    total = slab_coverage(distance, np.float32(0.013)).sum() * 1e-4
    assert total == pytest.approx(0.013, rel=1e-3)


def test_walls_lie_between_the_two_nearest_cell_points() -> None:
    foam = Foam(3, LOBULES, PLAIN)
    axes = grid(2.0, 0.125, (-1, -1, -1))
    cells = foam.lattice.cells_in_box(np.full(3, -1.5), np.full(3, 1.5))
    seeds = foam.lattice.to_mm(foam.lattice.places(cells).astype(np.float64))
    distance, index = cKDTree(seeds).query(points_of(axes), k=2)
    apart = np.linalg.norm(seeds[index[:, 0]] - seeds[index[:, 1]], axis=1)
    to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
    expected = slab_coverage(to_wall, np.float32(PLAIN.wall))
    wrong = np.abs(foam.tissue_fraction(*axes).ravel() - expected) > 0.01
    assert wrong.mean() < 0.002  # the 27 cells around a point miss a neighbour very rarely
    assert (expected > 0.1).mean() > 0.1


def test_any_part_of_the_points_gives_the_same_tissue() -> None:
    foam = Foam(5, LOBULES)
    z, y, x = grid(6.0, 0.25, (-3, 2, 5))
    whole = foam.tissue_fraction(z, y, x)
    part = foam.tissue_fraction(z[3:9], y[10:], x[4:5])
    np.testing.assert_allclose(part, whole[3:9, 10:, 4:5], atol=2e-3)
    wanted = np.random.default_rng(0).random(whole.shape) < 0.3
    some = foam.tissue_fraction(z, y, x, wanted)
    np.testing.assert_allclose(some[wanted], whole[wanted], atol=2e-3)
    assert not some[~wanted].any()
    assert not foam.tissue_fraction(z, y, x, np.zeros(whole.shape, bool)).any()


def test_patients_differ_and_repeat() -> None:
    axes = grid(1.0, 0.0625, (3, 4, 5))
    first = Foam(1, LOBULES).tissue_fraction(*axes)
    np.testing.assert_array_equal(first, Foam(1, LOBULES).tissue_fraction(*axes))
    other = Foam(2, LOBULES).tissue_fraction(*axes)
    assert np.corrcoef(first.ravel(), other.ravel())[0, 1] < 0.2


def test_coarse_sampling_has_the_same_mean_as_fine() -> None:
    foam = Foam(6, LOBULES)
    fine = foam.tissue_fraction(*grid(3.0, BLEND / 2, (2, 2, 2))).mean()
    coarse = foam.tissue_fraction(*grid(3.0, BLEND, (2, 2, 2))).mean()
    assert coarse == pytest.approx(fine, rel=0.005)


def test_ducts_are_open_and_the_edges_of_septa_around_them_thicker() -> None:
    foam = Foam(1, LOBULES)
    axes = grid(1.5, 0.0125, (0, 0, 0))
    closed = foam.tissue_fraction(*axes)
    duct = np.broadcast_to((axes[2] - 0.75).astype(np.float32), closed.shape)
    opened = foam.tissue_fraction(*axes, duct=duct)
    assert not opened[duct < -BLEND / 2].any()
    ring = (duct >= BLEND / 2) & (duct < foam.shape.ring_width)
    assert opened[ring].mean() > 1.3 * closed[ring].mean()
    far = duct > foam.shape.ring_width
    np.testing.assert_allclose(opened[far], closed[far], atol=0.02)


def test_septa_of_lobules_are_sheets_and_told_by_their_distance() -> None:
    foam = Foam(1, LOBULES, FoamShape(septum_share=1))
    axes = grid(8.0, 0.25, (-4, -4, -4))
    septa = foam.tissue_fraction(*axes)
    assert np.all(septa >= Foam(1, LOBULES, FoamShape(septum_share=0)).tissue_fraction(*axes))
    distance = foam.septum_distance(points_of(axes)).reshape(septa.shape)
    # Cells know the septum by their middles, so that at a lobule's corner the two may differ.
    assert np.mean(septa[distance < -BLEND / 4] > 0.5) > 0.93
    assert np.mean(septa[distance > BLEND] > 0.5) < 0.01
    assert 0.005 < np.mean(distance < 0) < 0.05
    far = Foam(1, LOBULES, FoamShape(septum_share=0)).septum_distance(points_of(axes))
    assert far.min() > 1000


def test_walls_are_found_by_their_offset() -> None:
    foam = Foam(2, LOBULES, FoamShape(septum_share=0))
    points = np.random.default_rng(0).uniform(-5, 5, (400, 3))
    moved = points + foam.wall_offset(points)
    assert np.linalg.norm(moved - points, axis=1).max() < 0.3
    before, after = (
        np.array([foam.tissue_fraction(*(p[a : a + 1] for a in (2, 1, 0)))[0, 0, 0] for p in each])
        for each in (points, moved)
    )
    assert before.mean() < 0.6 * foam.shape.wall / BLEND
    assert after.mean() > 0.9 * foam.shape.wall / BLEND
    assert (after > 0).mean() > 0.85


def test_thickness_varies_and_cells_are_uneven() -> None:
    axes = grid(2.0, BLEND, (1, 1, 1))
    plain = Foam(1, LOBULES, PLAIN).tissue_fraction(*axes)
    varied = Foam(1, LOBULES).tissue_fraction(*axes)
    # A wall of one thickness covers no more than its share of the window.
    assert plain.max() <= PLAIN.wall / BLEND + 1e-4
    assert varied.max() > 1.8 * PLAIN.wall / BLEND
    bent = Foam(1, LOBULES, FoamShape(**{**vars(PLAIN), "bends": 0.07})).tissue_fraction(*axes)
    assert np.corrcoef(plain.ravel(), bent.ravel())[0, 1] < 0.6


def test_the_back_is_denser_than_the_front() -> None:
    foam = Foam(1, LOBULES, FoamShape(patchiness=0, septum_share=0))
    front, back = (foam.tissue_fraction(*grid(4.0, 0.0625, (0, y, 0))).mean() for y in (-35, 33))
    assert back / front == pytest.approx(1.23, abs=0.06)
