"""The two points of a jittered lattice that are nearest to a place: cells of a foam by Voronoi."""

from __future__ import annotations

import numpy as np

from data.phantom.anatomy.lattice import Lattice

CHUNK = 32768  # samples treated at once: the working arrays then stay in the processor's cache
INDEX_MASK = 31  # five bits hold which of the 27 neighbours


def nearest_offsets(lattice: Lattice, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From points (n, 3) in mm to their two nearest lattice points: (n, 3) mm each.

    For points that lie far apart: each looks at its own 27 cells.
    """
    places = lattice.to_lattice(points)
    around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = np.floor(places).astype(np.int64)[:, None] + around
    offsets = lattice.places(cells) - places[:, None]
    square = np.square(offsets).sum(axis=-1)
    nearest = np.argpartition(square, 1, axis=1)[:, :2]
    one, two = (
        np.take_along_axis(offsets, nearest[:, side, None, None], axis=1)[:, 0] for side in (0, 1)
    )
    turn = lattice.rotation.T * lattice.pitch
    return one @ turn, two @ turn


class CellTable:
    """The cells of a box around some points, and the search for the two nearest cell points."""

    def __init__(self, lattice: Lattice, points: np.ndarray) -> None:
        first, stop = lattice.cell_range(points.min(axis=1), points.max(axis=1))
        self.lattice, self.first, self.size = lattice, first - 1, stop - first + 2
        axes = [np.arange(a, a + n) for a, n in zip(self.first, self.size, strict=True)]
        self.cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        places = lattice.places(self.cells)
        origin = self.first.astype(np.float32)
        self.places = [np.ascontiguousarray(places[:, a] - origin[a]) for a in range(3)]
        self.steps = np.array([self.size[1] * self.size[2], self.size[2], 1])
        around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        self.offsets = (around @ self.steps).astype(np.intp)

    def square_distance(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """Squared distance of two cells' points, lattice units; cell numbers (n,) -> (n,)."""
        apart = np.zeros(len(one), np.float32)
        for table in self.places:
            apart += np.square(table[one] - table[two])
        return apart

    def two_nearest(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """Numbers of the two cells nearest to points (3, n), and their squared distances."""
        count = points.shape[1]
        one, two = np.empty(count, np.intp), np.empty(count, np.intp)
        d1, d2 = np.empty(count, np.float32), np.empty(count, np.float32)
        matrix = (self.lattice.rotation.T / self.lattice.pitch).astype(np.float32)
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            places = matrix @ points[:, part]
            places -= self.first[:, None].astype(np.float32)
            cells = places.astype(np.intp)
            base = cells[0] * self.steps[0] + cells[1] * self.steps[1] + cells[2]
            nearest, second = self._packed_two_nearest(places, base)
            one[part] = base + self.offsets[nearest & INDEX_MASK]
            two[part] = base + self.offsets[second & INDEX_MASK]
            d1[part], d2[part] = nearest.view(np.float32), second.view(np.float32)
        return one, two, d1, d2

    def _packed_two_nearest(
        self, places: np.ndarray, base: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances to the two nearest cell points with the neighbour's number in their
        last five bits: the bits of non-negative floats order as integers do, so that two integer
        minima per neighbour keep distance and identity at once (relative error 4e-6)."""
        count = len(base)
        index = np.empty(count, np.intp)
        value, square = np.empty(count, np.float32), np.empty(count, np.float32)
        larger = np.empty(count, np.int32)
        nearest = np.full(count, np.float32(1e6).view(np.int32), np.int32)
        second = nearest.copy()
        for number, offset in enumerate(self.offsets):
            np.add(base, offset, out=index)
            for axis, table in enumerate(self.places):
                # "clip" only skips the bounds check: the table has a margin of one cell.
                np.take(table, index, out=value, mode="clip")
                np.subtract(value, places[axis], out=value)
                if axis == 0:
                    np.multiply(value, value, out=square)
                else:
                    np.multiply(value, value, out=value)
                    np.add(square, value, out=square)
            packed = square.view(np.int32)
            np.bitwise_and(packed, ~INDEX_MASK, out=packed)
            np.bitwise_or(packed, number, out=packed)
            np.maximum(nearest, packed, out=larger)
            np.minimum(nearest, packed, out=nearest)
            np.minimum(second, larger, out=second)
        return nearest, second
