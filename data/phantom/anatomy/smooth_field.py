"""Smooth random functions of position: what bends septa and makes their thickness vary.

A field is a cubic B-spline whose coefficients are hashes of lattice indices, so that it needs no
memory and is the same wherever one looks. On a grid it is the product of three small matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.phantom.anatomy.lattice import hash_words, uniform

# Root mean square of the weights' sum of squares over all places: what a spline of coefficients of
# deviation 1 has itself.
DEVIATION = (151 / 315) ** 1.5


@dataclass(frozen=True)
class SmoothField:
    """One random function of position with mean 0 and standard deviation 1."""

    # seed, stream: choose the function
    seed: int
    stream: int
    pitch: float  # mm between its coefficients: structures are some two pitches wide

    def on_grid(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values on a grid given by its axes in mm: float32 (len(z), len(y), len(x))."""
        parts = [self._spline(axis) for axis in (x, y, z)]
        cells = np.stack(np.meshgrid(*[index for index, _ in parts], indexing="ij"), axis=-1)
        values = self._coefficients(cells)  # (x, y, z)
        for _, weights in parts:
            values = np.tensordot(values, weights, axes=(0, 1))  # the next axis comes first
        return np.ascontiguousarray(values.transpose(2, 1, 0))

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at points (n, 3) in mm: float32 (n,). Memory grows with the box around them."""
        if len(points) == 0:
            return np.zeros(0, np.float32)
        place = np.asarray(points, np.float64) / self.pitch
        first = np.floor(place).astype(np.int64)
        weights = [_cubic_weights(place[:, axis] - first[:, axis]) for axis in range(3)]
        low, high = first.min(axis=0) - 1, first.max(axis=0) + 3
        axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
        table = self._coefficients(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
        steps = np.array([table.shape[1] * table.shape[2], table.shape[2], 1])
        corner = (first - 1 - low) @ steps
        values = np.zeros(len(points), np.float32)
        for a in range(4):
            for b in range(4):
                for c in range(4):
                    weight = weights[0][:, a] * weights[1][:, b] * weights[2][:, c]
                    values += table.ravel()[corner + (a, b, c) @ steps] * weight
        return values

    def _coefficients(self, cells: np.ndarray) -> np.ndarray:
        """Evenly drawn numbers such that the field has deviation 1."""
        scale = np.float32(2 * np.sqrt(3) / DEVIATION)
        return (uniform(hash_words(self.seed, self.stream, cells)) - np.float32(0.5)) * scale

    def _spline(self, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficient indices that an axis needs, and their weights (len(axis), indices)."""
        place = np.asarray(axis, np.float64) / self.pitch
        first = np.floor(place).astype(np.int64)
        index = np.arange(first.min() - 1, first.max() + 3)
        weights = np.zeros((len(place), len(index)), np.float32)
        rows = np.arange(len(place))
        for number, weight in enumerate(_cubic_weights(place - first).T):
            weights[rows, first - 1 + number - index[0]] = weight
        return index, weights


def _cubic_weights(fraction: np.ndarray) -> np.ndarray:
    """Weights of the four coefficients around places `fraction` (0..1) of a cell: (n, 4)."""
    rest = 1 - fraction
    weights = [
        rest**3,
        4 - 3 * fraction**2 * (2 - fraction),
        4 - 3 * rest**2 * (2 - rest),
        fraction**3,
    ]
    return np.stack(weights, axis=-1).astype(np.float32) / 6
