"""The slices of a volume, shrunk for an evaluation, and their way through the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data.patches import Degradation, shrink
from data.volumes.volume import Volume
from data.windows import IntensityWindow
from models.inference.case_enlarger import CaseEnlarger, Enlarged
from models.inference.slice_jobs import SliceJob
from util.images.resampling import area_average


@dataclass(frozen=True)
class RestorationSettings:
    """How a volume is shrunk and restored."""

    degradation: Degradation  # how to shrink, see `data.patches.shrink`
    lung_statistics: bool = False  # take norm statistics from the mask instead of the whole slice
    volume_statistics: bool = False  # pool them over all slices
    consistency: bool = False  # also score, and then write, the result after back-projection
    self_ensemble: bool = False  # average over the eight flips and rotations
    overwrite: bool = False  # whether existing results may be replaced


@dataclass(frozen=True)
class ShrunkSlice:
    """One slice of the truth and what the network gets of it."""

    index: int  # of the slice
    physical: np.ndarray  # as read, (rows, columns)
    high: np.ndarray  # the same in [-1, 1]
    low: np.ndarray  # shrunk, padded to whole blocks, in [-1, 1]
    section: np.ndarray | None  # lung mask on the truth's grid; None for everywhere


def shrink_slices(
    volume: Volume,
    mask: np.ndarray | None,
    window: IntensityWindow,
    degradation: Degradation,
    scale: int,
) -> Iterator[ShrunkSlice]:
    """Read and shrink all slices of a volume, one after the other."""
    columns, rows, slices = volume.size
    for index in range(slices):
        physical = volume.read_slice(index)
        high = window.to_unit(physical)
        padded = np.pad(high, ((0, -rows % scale), (0, -columns % scale)), mode="edge")
        low = shrink(padded, scale, degradation).clip(-1.0, 1.0)
        yield ShrunkSlice(index, physical, high, low, None if mask is None else mask[index])


def restoration_job(item: ShrunkSlice, settings: RestorationSettings, scale: int) -> SliceJob:
    """What the network is to do for a shrunk slice."""
    if item.section is None or not settings.lung_statistics:
        return SliceJob(item.low, index=item.index)
    return SliceJob(item.low, low_mask(item.section, scale), index=item.index)


def statistics_job(item: ShrunkSlice, settings: RestorationSettings, scale: int) -> SliceJob | None:
    """The same for gathering; None where statistics come from lung and the slice shows none."""
    job = restoration_job(item, settings, scale)
    from_lung = settings.lung_statistics and item.section is not None
    return None if from_lung and job.scope is None else job


def restore_slices(
    slices: Iterable[ShrunkSlice],
    enlarger: CaseEnlarger,
    settings: RestorationSettings,
    scale: int,
) -> Iterator[tuple[ShrunkSlice, Enlarged]]:
    """Each slice with its enlargement."""
    for item, enlarged in enlarger.enlarge_items(
        slices, lambda item: restoration_job(item, settings, scale)
    ):
        if enlarged is not None:  # no job here is None
            yield item, enlarged


def low_mask(mask: np.ndarray, scale: int) -> np.ndarray | None:
    """Mask (rows, columns) on the shrunk grid: blocks with any lung; None where there is none."""
    rows, columns = mask.shape
    padded = np.pad(mask != 0, ((0, -rows % scale), (0, -columns % scale)))
    shrunk = area_average(padded, scale) > 0
    return shrunk if shrunk.any() else None
