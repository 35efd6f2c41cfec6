"""The jittered lattice: reproducible, uniform, and without gaps."""

from __future__ import annotations

import numpy as np

from data.phantom.anatomy.lattice import Lattice, hash_words, random_rotation, uniform


def box_of_cells(side: int) -> np.ndarray:
    axis = np.arange(-side, side)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def test_hash_is_a_fixed_function_of_seed_stream_and_cell() -> None:
    cells = np.array([[0, 0, 0], [1, -2, 3], [-1000, 5, 70000]])
    words = hash_words(7, 1, cells)
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, hash_words(7, 1, cells))
    np.testing.assert_array_equal(words[1:2], hash_words(7, 1, cells[1:2]))
    assert not np.any(words == hash_words(8, 1, cells))
    assert not np.any(words == hash_words(7, 2, cells))


def test_hash_tells_the_axes_apart() -> None:
    assert len(np.unique(hash_words(1, 1, np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])))) == 3


def test_hash_is_uniform_and_neighbours_are_uncorrelated() -> None:
    values = uniform(hash_words(3, 1, box_of_cells(16))).reshape(32, 32, 32)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, bins=16, range=(0, 1))[0]
    assert np.abs(counts / values.size * 16 - 1).max() < 0.08
    for axis in range(3):
        pairs = np.corrcoef(np.delete(values, 0, axis).ravel(), np.delete(values, -1, axis).ravel())
        assert abs(pairs[0, 1]) < 0.02


def test_rotation_is_a_proper_rotation() -> None:
    rotation = random_rotation(5)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.isclose(np.linalg.det(rotation), 1)


def test_points_stay_in_their_cells_and_units_round_trip() -> None:
    lattice = Lattice(2, 11, 0.25, 0.8)
    cells = box_of_cells(6)
    places = lattice.places(cells)
    inside = places - cells
    assert inside.min() >= 0.1 - 1e-5
    assert inside.max() <= 0.9 + 1e-5
    np.testing.assert_allclose(lattice.to_lattice(lattice.to_mm(places)), places, atol=1e-5)
    # One lattice unit is one pitch long, whatever the direction.
    moved = lattice.to_mm(np.eye(3)) - lattice.to_mm(np.zeros((3, 3)))
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.25)


def test_cells_in_box_holds_every_cell_with_a_point_in_the_box() -> None:
    lattice = Lattice(4, 31, 9.0, 0.5)
    low, high = np.array([-20.0, 3.0, -5.0]), np.array([15.0, 22.0, 6.0])
    points = lattice.to_mm(lattice.places(box_of_cells(8)))
    wanted = box_of_cells(8)[np.all((points >= low) & (points <= high), axis=1)]
    got = {tuple(cell) for cell in lattice.cells_in_box(low, high)}
    assert len(wanted) > 0
    assert {tuple(cell) for cell in wanted} <= got
