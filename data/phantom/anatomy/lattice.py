"""Random points on a tilted, jittered lattice: the same point for the same cell, anywhere.

Everything small in the phantom (alveoli, lobules, tips of vessels) hangs on such points. A point
is a hash of its cell's index, so no list is kept, any region can be looked at on its own, and
two looks at one place agree whatever their resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np


def hash_words(seed: int, stream: int, cells: np.ndarray) -> np.ndarray:
    """Hash integer cell indices to 32 random bits.

    Args:
        seed: the patient.
        stream: which independent family of numbers.
        cells: (..., 3) integers, negative allowed.

    Returns:
        (...,) uint32, uniformly distributed (mixing function "lowbias32" of C. Wellons).
    """
    start = (seed * 0x9E3779B1 + stream * 0x85EBCA77 + 0x165667B1) & 0xFFFFFFFF
    words = _mix(np.full(cells.shape[:-1], start, np.uint32))
    for axis in range(3):
        words = _mix(words ^ (cells[..., axis].astype(np.uint32) * np.uint32(0x9E3779B1)))
    return words


def _mix(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x7FEB352D)
    words = (words ^ (words >> np.uint32(15))) * np.uint32(0x846CA68B)
    return words ^ (words >> np.uint32(16))


def uniform(words: np.ndarray) -> np.ndarray:
    """Map 32 random bits to float32 in [0, 1)."""
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def random_rotation(seed: int) -> np.ndarray:
    """Rotation matrix (3, 3), uniform over all directions, from `seed`."""
    axes, triangle = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    axes = axes * np.sign(np.diag(triangle))
    return axes * np.linalg.det(axes)


@dataclass(frozen=True)
class Lattice:
    """One random point in every cell of a cubic lattice turned by a random rotation.

    The tilt keeps the lattice's rows out of the image planes, where the eye would find them.
    """

    # seed, stream: choose the rotation and the points
    seed: int
    stream: int
    pitch: float  # cell size in mm
    # share of the cell over which the point may lie, around its centre. Up to 0.8 the two nearest
    # points of any place lie in the 27 cells around it but for rare cases.
    jitter: float
    shift: float = 0.0  # of the cells along all three axes, in cells
    turn: int | None = None  # stream that chooses the rotation, by default `stream`
    rotation: np.ndarray = field(init=False, compare=False)

    def __post_init__(self) -> None:
        turn = self.stream if self.turn is None else self.turn
        object.__setattr__(self, "rotation", random_rotation(self.seed * 1009 + turn))

    def between(self, stream: int, shift: float) -> Lattice:
        """Cells as large and turned alike, moved by `shift` cells, with points of their own."""
        turn = self.stream if self.turn is None else self.turn
        return replace(self, stream=stream, shift=self.shift + shift, turn=turn)

    def to_lattice(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in mm to lattice units, where cell (i, j, k) is [i, i+1) and so on."""
        return points @ (self.rotation / self.pitch) - self.shift

    def to_mm(self, places: np.ndarray) -> np.ndarray:
        """The inverse of `to_lattice`."""
        return (places + self.shift) @ (self.rotation.T * self.pitch)

    def places(self, cells: np.ndarray) -> np.ndarray:
        """Each cell's point in lattice units; cells (..., 3) integers -> (..., 3) float32."""
        jitter = np.float32(self.jitter)
        shifts = [uniform(hash_words(self.seed, self.stream + axis, cells)) for axis in range(3)]
        return cells.astype(np.float32) + 0.5 + (np.stack(shifts, axis=-1) - 0.5) * jitter

    def cell_range(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and one-past-last cell, (3,) integers each, covering a box given in mm."""
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), axis=-1)
        places = self.to_lattice(corners.reshape(-1, 3))
        first = np.floor(places.min(axis=0)).astype(np.int64)
        return first, np.floor(places.max(axis=0)).astype(np.int64) + 1

    def cells_in_box(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """All cells (n, 3) whose own point could lie in the box (mm), a cell's margin included."""
        first, stop = self.cell_range(low - self.pitch, high + self.pitch)
        axes = [np.arange(a, b) for a, b in zip(first, stop, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
