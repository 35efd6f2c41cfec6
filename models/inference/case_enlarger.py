"""The slices of one case through the network: pooled statistics, orientations, draws, spread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np

from models.fused.statistics import Moments
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver

ORIENTATIONS = 8  # four rotations, each with and without a flip
DRAWS = 8  # of texture, from which the uncertainty is taken: as many

Item = TypeVar("Item")
Jobs = Iterable["SliceJob | None"]


@dataclass(frozen=True)
class Enlarged:
    """One slice behind the network."""

    unit: np.ndarray  # float32 (rows * k, columns * k) in [-1, 1]
    # standard deviation over draws or orientations, same shape and scale; None where nobody asked
    deviation: np.ndarray | None = None


class CaseEnlarger:
    """Enlarges the slices of one volume.

    Args:
        resolver: enlarges a slice.
        self_ensemble: return the mean over the eight orientations instead of the plain result.
        uncertainty: also return a standard deviation: of draws of texture where the generator has
            it and slices are not cut into tiles, else over the eight orientations.
        samples: return the mean of so many draws of texture, and their standard deviation times
            the resolver's `spread`.
    """

    def __init__(
        self,
        resolver: SuperResolver,
        self_ensemble: bool = False,
        uncertainty: bool = False,
        samples: int = 0,
    ) -> None:
        self._resolver = resolver
        self._averaged = self_ensemble
        self._samples = samples
        draws = uncertainty and resolver.has_texture and resolver.tile_size is None
        self._draws = samples or (DRAWS if draws else 0)
        self._spread = uncertainty and not self._draws
        self._orientations = range(ORIENTATIONS if self_ensemble or self._spread else 1)
        self._statistics: list[list[tuple[Moments, ...]]] | None = None

    def best(self) -> CaseEnlarger:
        """An enlarger of the same statistics that gives the best estimate alone."""
        alone = CaseEnlarger(self._resolver, self._averaged)
        if self._statistics is not None:
            alone._statistics = self._statistics[: len(alone._orientations)]
        return alone

    def gather(self, jobs: Callable[[], Jobs]) -> None:
        """Pool norm statistics over all slices; `enlarge` uses them from then on.

        One pass gathers, `enlarge` is the second, which applies. In the first each layer sees
        slices normalised with their own statistics: pooling is not repeated layer by layer, which
        would take a pass a layer.

        Args:
            jobs: gives the slices anew at each call; orientations differ in their statistics.
        """
        self._statistics = [
            [
                self._resolver.measure_slice(turned.image, turned.scope)
                for job in jobs()
                if job is not None
                for turned in (turn_job(job, orientation),)
            ]
            for orientation in self._orientations
        ]

    def enlarge(self, jobs: Jobs) -> Iterator[Enlarged | None]:
        """Enlarge slices in their order; None stays None."""
        try:
            if len(self._orientations) == 1 and not self._draws:
                self._use(0)
                for unit in self._resolver.upscale_slices(jobs):
                    yield None if unit is None else Enlarged(unit)
                return
            for job in jobs:
                yield None if job is None else self._measured(job)
        finally:
            self._resolver.use_statistics(None)

    def enlarge_items(
        self, items: Iterable[Item], job_of: Callable[[Item], SliceJob | None]
    ) -> Iterator[tuple[Item, Enlarged | None]]:
        """Enlarge what `job_of` makes of each item; yields the item beside its enlargement."""
        # Not itertools.tee, which keeps items by the dozen.
        waiting: deque[Item] = deque()

        def jobs() -> Iterator[SliceJob | None]:
            for item in items:
                waiting.append(item)
                yield job_of(item)

        for enlarged in self.enlarge(jobs()):
            yield waiting.popleft(), enlarged

    def _measured(self, job: SliceJob) -> Enlarged:
        """What was asked for of the orientations and of the draws."""
        if self._samples:
            return Enlarged(*self._drawn(job, self._samples))
        orientations = map(partial(self._oriented, job), self._orientations)
        plain = next(orientations)
        mean, spread = mean_and_deviation(chain([plain], orientations), drawn=False)
        if self._draws:
            _, spread = self._drawn(job, self._draws)
        unit = mean if self._averaged else plain
        return Enlarged(unit, spread if self._draws or self._spread else None)

    def _drawn(self, job: SliceJob, draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean of draws, and their deviation by the factor that makes it the truth's."""
        mean, deviation = mean_and_deviation(self._resolver.upscale_draws(job, draws), drawn=True)
        return mean, deviation * np.float32(self._resolver.spread)

    def _oriented(self, job: SliceJob, orientation: int) -> np.ndarray:
        """The enlargement of a turned slice, turned back."""
        self._use(orientation)
        (enlarged,) = self._resolver.upscale_slices([turn_job(job, orientation)])
        if enlarged is None:
            raise ValueError("expected an enlargement of every job")
        return turn_back(enlarged, orientation)

    def _use(self, orientation: int) -> None:
        given = self._statistics
        # All slices may have been empty: then there is nothing to pool and nothing to enlarge.
        self._resolver.use_statistics(given[orientation] or None if given is not None else None)


def mean_and_deviation(images: Iterable[np.ndarray], drawn: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of float32 images, by Welford's formula: nothing cancels.

    Args:
        images: two at least where they are drawn.
        drawn: whether they stand for all that could be drawn, or are all that there are.
    """
    mean: np.ndarray = np.zeros(1, dtype=np.float32)
    spread: np.ndarray = np.zeros(1, dtype=np.float32)
    for number, image in enumerate(images, start=1):
        difference = image - mean
        mean = mean + difference / number
        spread = spread + difference * (image - mean)
    return mean, np.sqrt(spread / (number - drawn))


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight flips and rotations of an image (rows, columns); 0 leaves it as it is."""
    turned = np.rot90(image, orientation % 4)
    return np.ascontiguousarray(turned[:, ::-1] if orientation >= 4 else turned)


def turn_back(image: np.ndarray, orientation: int) -> np.ndarray:
    """Inverse of `turn`."""
    straight = image[:, ::-1] if orientation >= 4 else image
    return np.ascontiguousarray(np.rot90(straight, -(orientation % 4)))


def turn_job(job: SliceJob, orientation: int) -> SliceJob:
    """A job with image and masks turned alike."""
    scope = None if job.scope is None else turn(job.scope, orientation)
    needed = None if job.needed is None else turn(job.needed, orientation)
    return replace(job, image=turn(job.image, orientation), scope=scope, needed=needed)
