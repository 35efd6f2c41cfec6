"""Nodules: their volume, and how far their border lies from where it should.

Both tell nodule from lung by one threshold for all images. **What fools them**: the volume hardly
reacts, for a border that is blurred evenly moves in as much as out. The distance does react, and
noise raises it; but a smooth border in the right place says nothing about what is inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MARGIN = 1.0  # mm beyond the nodule that is looked at
Bools = NDArray[np.bool_]


class Nodule:
    """A nodule that is known.

    Args:
        nodule: (slices, rows, columns), non-zero where it lies.
        other: the same shape, vessels and airways, which are not counted.
        threshold: between the densities of nodule and lung.
        spacing: voxel size along (x, y, z), mm.
    """

    def __init__(
        self,
        nodule: NDArray[Any],
        other: NDArray[Any],
        threshold: float,
        spacing: tuple[float, float, float],
    ) -> None:
        self._nodule = np.asarray(nodule) != 0
        distance = ndimage.distance_transform_edt(~self._nodule, sampling=spacing[::-1])
        self._near = distance <= MARGIN
        self._other = np.asarray(other) != 0
        self._threshold, self._spacing = threshold, spacing

    def volume(self, image: NDArray[Any]) -> float:
        """mm^3 of what is as dense as the nodule in and around it, up to 1 mm beyond."""
        dense = self._dense(image) & ~self._other
        return float(np.count_nonzero(dense) * np.prod(self._spacing))

    def boundary_distance(self, image: NDArray[Any]) -> float:
        """Mean distance in mm between the borders of what is as dense and of the nodule.

        In plane, slice by slice, both ways (average symmetric surface distance): of each pixel of
        one border from the other. Islands are left out and holes filled; vessels and airways count
        as nodule on both sides, and borders beside them not at all. A slice that shows nothing as
        dense counts with the nodule's own radius.
        """
        sums, count = 0.0, 0
        others = self._other & self._near
        for dense, nodule, other in zip(self._dense(image), self._nodule, others, strict=True):
            if not nodule.any():
                continue
            outline, shown = (_outline(one | other, nodule) for one in (nodule, dense))
            clear = ~ndimage.binary_dilation(other, iterations=2)
            wanted, found = _border(outline) & clear, _border(shown) & clear
            if found.any() and wanted.any():
                apart = np.concatenate([_distance(found)[wanted], _distance(wanted)[found]])
            else:
                apart = np.full(np.count_nonzero(wanted), np.sqrt(np.count_nonzero(nodule) / np.pi))
            sums += float(apart.sum()) * self._spacing[0]
            count += apart.size
        return sums / count if count else float("nan")

    def _dense(self, image: NDArray[Any]) -> Bools:
        dense: Bools = self._near & (np.asarray(image) >= self._threshold)
        return dense


def _outline(mask: Bools, nodule: Bools) -> Bools:
    """The part that shares most with the nodule, without holes; nothing where none does."""
    numbers, _ = ndimage.label(mask)
    shared = np.bincount(numbers[nodule], minlength=2)
    shared[0] = 0
    filled: Bools = ndimage.binary_fill_holes((numbers == np.argmax(shared)) & (numbers > 0))
    return filled


def _border(mask: Bools) -> Bools:
    border: Bools = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return border


def _distance(border: Bools) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~border)
    return distance
