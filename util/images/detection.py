"""Whether fine structures stand where they are: thin septa, and vessels below a millimetre.

Every image marks its strongest ridges, as many pixels as the structures have, and the marks are
compared with what is known to lie there. Since an image chooses its own strongest ridges, however
strong they are, contrast and brightness win nothing; noise puts marks where nothing is, which costs
precision and, since marks are counted, recall. **What fools it**: marks hit by chance, the more
structures there are (read it beside the row of the noise control); and a structure that is moved or
smeared by less than the reach counts as found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bools = NDArray[np.bool_]


class Detection(NamedTuple):
    """How marks agree with what is there; 0 to 1, NaN where nothing is to be found."""

    precision: float  # share of the marks that lie on a structure, within the reach
    recall: float  # share of the structures' pixels that have a mark within the reach
    f1: float  # harmonic mean of both


def ridges(images: NDArray[Any], width: float) -> NDArray[np.float32]:
    """Strength of bright lines and spots: minus the lower curvature, 0 where nothing is bright.

    The largest principal curvature of the blurred image (Frangi et al., MICCAI 1998), times the
    blur squared, so that widths compare.

    Args:
        images: (slices, rows, columns), each taken by itself.
        width: standard deviation of the blur in pixels.
    """
    found = np.empty(np.shape(images), np.float32)
    for index, image in enumerate(np.asarray(images, dtype=np.float32)):
        across, down, mixed = (
            ndimage.gaussian_filter(image, width, order=order) for order in ((0, 2), (2, 0), (1, 1))
        )
        lower = (across + down) / 2 - np.hypot((across - down) / 2, mixed)
        found[index] = np.maximum(0, -lower) * width**2
    return found


class Structures:
    """Structures that are to be found in a volume.

    Args:
        wanted: bool (slices, rows, columns), what is to be found.
        others: the same shape, what else is bright: marks on or near it are not counted.
        reach: how far off a mark may lie, pixels.
    """

    def __init__(self, wanted: Bools, others: Bools, reach: float) -> None:
        self._wanted, self._reach = wanted, reach
        self._open = ~within(others, reach) | wanted
        self._near = within(wanted, reach)
        self._count = int(np.count_nonzero(wanted))

    def found_by(self, strength: NDArray[np.float32]) -> Detection:
        """What the `ridges` of an image find."""
        if not self._count:
            return Detection(float("nan"), float("nan"), float("nan"))
        values = np.where(self._open, strength, -1)
        least = np.partition(values, -self._count, axis=None)[-self._count]
        # Flat images have no ridges, and mark nothing.
        marked = (values >= least) & (values > 0)
        precision = float(self._near[marked].mean()) if marked.any() else 0.0
        recall = float(within(marked, self._reach)[self._wanted].mean())
        both = precision + recall
        return Detection(precision, recall, 2 * precision * recall / both if both else 0.0)


def thinner_than(structures: Bools, width: float) -> Bools:
    """Pixels of structures (slices, rows, columns) that no disc of `width` pixels fits over."""
    thin = np.empty_like(structures)
    for index, one in enumerate(structures):
        middles = ndimage.distance_transform_edt(one) >= width / 2
        thin[index] = one & ~within(middles[None], width / 2)[0]
    return thin


def within(marks: Bools, reach: float) -> Bools:
    """Pixels that have a mark in their slice at most `reach` pixels away."""
    near = np.zeros_like(marks)
    for index, one in enumerate(marks):
        if one.any():
            near[index] = ndimage.distance_transform_edt(~one) <= reach
    return near
