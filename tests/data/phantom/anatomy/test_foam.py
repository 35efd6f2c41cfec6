"""Alveolar walls: right by brute force, physiological in size, a pure function of position."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from data.phantom.anatomy.foam import FINEST_STEP, Foam, FoamShape, slab_coverage
from data.phantom.anatomy.lattice import Lattice

LOBULES = Lattice(1, 31, 11.0, 0.5)


def grid(side_mm: float, step: float, corner: tuple[float, float, float]) -> np.ndarray:
    """Points (3, n) of a cube."""
    axis = np.arange(round(side_mm / step)) * step
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), z.ravel()]) + np.array(corner)[:, None]


def test_slab_coverage_known_answers() -> None:
    window = FINEST_STEP
    thick, thin = np.float32(0.1), np.float32(window / 4)
    distance = np.array([0.0, 0.05, 0.05 + window / 2, 1.0], np.float32)
    np.testing.assert_allclose(slab_coverage(distance, thick), [1, 0.5, 0, 0], atol=1e-4)
    # A wall thinner than the window fills its share of it.
    np.testing.assert_allclose(slab_coverage(np.zeros(1, np.float32), thin), [0.25], rtol=1e-5)


def test_slab_coverage_keeps_the_volume() -> None:
    distance = np.abs(np.arange(-2000, 2000) * 1e-4).astype(np.float32)
    total = slab_coverage(distance, np.float32(0.013)).sum() * 1e-4
    assert total == pytest.approx(0.013, rel=1e-3)


def test_walls_lie_between_the_two_nearest_cell_points() -> None:
    shape = FoamShape(gradient=0, patchiness=0, duct_share=0, septum_share=0)
    foam = Foam(3, LOBULES, shape)
    points = np.random.default_rng(0).uniform(-1, 1, (3, 4000))
    cells = foam.lattice.cells_in_box(np.full(3, -1.5), np.full(3, 1.5))
    seeds = foam.lattice.to_mm(foam.lattice.places(cells).astype(np.float64))
    distance, index = cKDTree(seeds).query(points.T, k=2)
    apart = np.linalg.norm(seeds[index[:, 0]] - seeds[index[:, 1]], axis=1)
    to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
    expected = slab_coverage(to_wall, np.float32(shape.wall))
    wrong = np.abs(foam.tissue_fraction(points) - expected) > 0.01
    assert wrong.mean() < 0.002  # the 27 cells around a point miss a neighbour very rarely
    assert (expected > 0.1).mean() > 0.1


def test_any_part_of_the_points_gives_the_same_tissue() -> None:
    foam = Foam(5, LOBULES)
    points = np.random.default_rng(1).uniform(-8, 8, (3, 3000))
    whole = foam.tissue_fraction(points)
    np.testing.assert_allclose(foam.tissue_fraction(points[:, 100:120]), whole[100:120], atol=2e-3)
    assert foam.tissue_fraction(points[:, :0]).shape == (0,)


def test_patients_differ_and_repeat() -> None:
    points = grid(1.0, 0.0625, (3, 4, 5))
    first = Foam(1, LOBULES).tissue_fraction(points)
    np.testing.assert_array_equal(first, Foam(1, LOBULES).tissue_fraction(points))
    assert np.corrcoef(first, Foam(2, LOBULES).tissue_fraction(points))[0, 1] < 0.2


@pytest.mark.parametrize("seed", [1, 11])
def test_airspace_walls_and_intercepts_are_those_of_inflated_lung(seed: int) -> None:
    """Share of air 0.75 to 0.92, walls some 10 um thick, airspaces of 0.2 to 0.3 mm.

    Sources in data/phantom/anatomy/foam.py: share of gas from Weibel 1963 and from normal CT
    numbers, alveolar size from Ochs et al. 2004 (0.2 mm across; ducts are wider).
    """
    foam = Foam(seed, Lattice(seed, 31, 11.0, 0.5))
    rows = np.random.default_rng(2).uniform(-20, 20, (2, 60))
    step, along = 0.004, np.arange(1000) * 0.004
    points = np.stack(
        [np.tile(along, 60), np.repeat(rows[0], len(along)), np.repeat(rows[1], len(along))]
    )
    tissue = np.concatenate(
        [foam.tissue_fraction(part) for part in np.split(points, 60, axis=1)]
    ).reshape(60, -1)
    assert 0.08 < tissue.mean() < 0.25
    hit = tissue > 0
    walls = np.count_nonzero(hit[:, 1:] & ~hit[:, :-1])
    length = tissue.size * step
    assert 0.18 < length / walls < 0.32  # mean linear intercept, mm
    # Volume per wall area (area per volume is twice the crossings per length).
    thickness = tissue.mean() / (2 * walls / length)
    assert 0.008 < thickness < 0.025


def test_coarse_sampling_has_the_same_mean_as_fine() -> None:
    foam = Foam(6, LOBULES)
    fine = foam.tissue_fraction(grid(3.0, FINEST_STEP, (2, 2, 2))).mean()
    coarse = foam.tissue_fraction(grid(3.0, 0.125, (2, 2, 2))).mean()
    assert coarse == pytest.approx(fine, abs=0.01)


def test_ducts_open_and_septa_close() -> None:
    points = grid(3.0, 0.0625, (0, 0, 0))
    closed = Foam(1, LOBULES, FoamShape(duct_share=0, septum_share=0)).tissue_fraction(points)
    ducts = Foam(1, LOBULES, FoamShape(septum_share=0)).tissue_fraction(points)
    assert np.all(ducts <= closed)
    assert ducts.mean() < 0.95 * closed.mean()
    wide = grid(8.0, 0.25, (-4, -4, -4))
    septa = Foam(1, LOBULES, FoamShape(septum_share=1)).tissue_fraction(wide)
    assert np.all(septa >= Foam(1, LOBULES, FoamShape(septum_share=0)).tissue_fraction(wide))
    assert (septa == 1).any()


def test_the_back_is_denser_than_the_front() -> None:
    foam = Foam(1, LOBULES, FoamShape(patchiness=0, septum_share=0))
    front, back = (foam.tissue_fraction(grid(2.0, 0.0625, (0, y, 0))).mean() for y in (-35, 33))
    assert 1.2 < back / front < 1.7
