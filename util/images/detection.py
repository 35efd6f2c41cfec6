"""Whether fine structures stand where they are: thin septa, and vessels below a millimetre.

What is to be found are the strongest ridges of the noise-free truth that lie where the labels say
that a structure is: a label's plane shows some that a whole slice does not. Every image marks its
own strongest ridges, as many pixels as these, and the marks are compared with them. Since an image
chooses by itself, however strong its ridges are, contrast and brightness win nothing; noise puts
marks where nothing is, which costs precision and, since marks are counted, recall. **What fools
it**: marks hit by chance, the more structures there are (read it beside the row of the noise
control); and a structure that is moved or smeared by less than the reach counts as found.
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
        labelled: bool (slices, rows, columns), where they are.
        others: the same shape, what else is bright: marks on or near it are not counted.
        truth: `ridges` of the noise-free truth. Of its marks those near the labels are to be found;
            the rest is bright too, and not counted.
        reach: how far off a mark may lie, pixels.
    """

    def __init__(
        self, labelled: Bools, others: Bools, truth: NDArray[np.float32], reach: float
    ) -> None:
        self._reach = reach
        self._open = ~within(others, reach) | labelled
        shown = self._marks(truth, int(np.count_nonzero(labelled)))
        self._wanted = shown & within(labelled, reach)
        self._near = within(self._wanted, reach)
        bright = shown & ~self._wanted
        self._open &= ~bright & (~within(bright, reach) | self._near)

    def found_by(self, strength: NDArray[np.float32]) -> Detection:
        """What the `ridges` of an image find; the truth's own find everything."""
        if not self._wanted.any():
            return Detection(float("nan"), float("nan"), float("nan"))
        marked = self._marks(strength, int(np.count_nonzero(self._wanted)))
        precision = float(self._near[marked].mean()) if marked.any() else 0.0
        recall = float(within(marked, self._reach)[self._wanted].mean())
        both = precision + recall
        return Detection(precision, recall, 2 * precision * recall / both if both else 0.0)

    def _marks(self, strength: NDArray[np.float32], count: int) -> Bools:
        """The strongest pixels that count; flat images have no ridges, and mark nothing."""
        if count == 0:
            return np.zeros_like(self._open)
        values = np.where(self._open, strength, -1)
        least = np.partition(values, -count, axis=None)[-count]
        marked: Bools = (values >= least) & (values > 0)
        return marked


def thinner_than(structures: Bools, width: float) -> Bools:
    """Pixels of structures (slices, rows, columns) that no disc of `width` pixels fits over."""
    thin = np.empty_like(structures)
    for index, one in enumerate(structures):
        # From a pixel's middle to the nearest one outside it is half a pixel more than to the edge.
        middles = ndimage.distance_transform_edt(one) - 0.5 >= width / 2
        thin[index] = one & ~within(middles[None], width / 2)[0]
    return thin


def within(marks: Bools, reach: float) -> Bools:
    """Pixels that have a mark in their slice at most `reach` pixels away."""
    near = np.zeros_like(marks)
    for index, one in enumerate(marks):
        if one.any():
            near[index] = ndimage.distance_transform_edt(~one) <= reach
    return near
