"""One volume through the super-resolver: reading, computing and writing at the same time.

Inside the lung and the window its slices are the network's, elsewhere interpolated
(`compose_slice`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from data.lung_mask import preview_slice
from data.volumes.geometry import enlarged_affine
from data.volumes.volume import Volume
from data.windows import IntensityWindow
from data.writing.nifti_writer import NiftiSliceWriter
from methods.super_resolution.resuming import UpscaleSettings
from models.inference.case_enlarger import CaseEnlarger, Enlarged
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from util.images.resampling import back_project, consistency_errors, enlarge
from util.interrupt import StopRequest
from util.pipeline import ahead
from util.progress import progress

EDGE_SHARE = 1 / 60  # of the window at either end: 25 of 1500 HU


def compose_slice(
    super_resolved: np.ndarray,
    interpolated: np.ndarray,
    window: IntensityWindow,
    mask: np.ndarray | None,
) -> np.ndarray:
    """Choose for each pixel between super-resolution and interpolation, in physical units.

    Where the interpolated input lies outside the window, the network saw it clipped, so the
    interpolated value is carried over: bone stays bone. Over the window's outermost `EDGE_SHARE`
    the two are mixed, so that no edge shows where air or bone reach its ends. Outside the lung
    mask the interpolated value stands too; across the mask's border the two are mixed linearly over
    one input pixel, so that no staircase of enlarged mask pixels shows.

    Args:
        super_resolved: float32 (rows * k, columns * k) in physical units (HU).
        interpolated: the same grid, cubic interpolation of the input.
        window: of the network's input.
        mask: lung mask of the input slice (rows, columns), non-zero inside; None for everywhere.

    Returns:
        float32 (rows * k, columns * k).
    """
    inside = np.minimum(interpolated - window.low, window.high - interpolated)
    inside /= np.float32(EDGE_SHARE * (window.high - window.low))
    mixed = interpolated + inside.clip(0.0, 1.0) * (super_resolved - interpolated)
    chosen = np.where(inside < 1.0, mixed, super_resolved)
    if mask is None:
        return chosen
    scale = interpolated.shape[0] // mask.shape[0]
    share = enlarge((mask != 0).astype(np.float32), scale, order=1).clip(0.0, 1.0)
    return interpolated + share * (chosen - interpolated)


class MakeSlice(Protocol):
    """What makes a slice of the result."""

    def __call__(self, image: np.ndarray, section: np.ndarray | None, index: int = 0) -> np.ndarray:
        """HU (rows, columns), its lung mask and its place, to HU (rows * k, columns * k)."""
        ...


@dataclass
class Consistency:
    """Difference between the written result's area average and the input, inside the window."""

    # measured in this run; those of an earlier run that was resumed are not among them
    slices: int = 0
    pixels: int = 0  # of the input that were compared
    total: float = 0.0  # sum of the absolute differences in HU
    largest: float = 0.0  # the largest one in HU

    @property
    def mean(self) -> float:
        """Mean absolute difference in HU; 0 where nothing was compared."""
        return self.total / max(self.pixels, 1)

    def as_dict(self) -> dict[str, float | int | None]:
        """For the run record; None where nothing was compared."""
        measured = self.pixels > 0
        return {
            "mean": round(self.mean, 4) if measured else None,
            "largest": round(self.largest, 4) if measured else None,
            "slices": self.slices,
        }

    def add(self, errors: np.ndarray) -> None:
        """Count one slice's absolute differences (any shape)."""
        self.slices += 1
        self.pixels += errors.size
        self.total += float(errors.sum(dtype=np.float64))
        self.largest = max(self.largest, float(errors.max(initial=0.0)))


@dataclass
class Upscaled:
    """What `upscale_volume` has to tell besides its files."""

    shown: int  # index of the slice for the picture
    preview: tuple[np.ndarray, np.ndarray]  # its input and result in HU
    consistency: Consistency  # see `Consistency`
    computed: int  # slices of this run, without those that it resumed
    best: MakeSlice  # makes the best estimate: the result, but for drawn texture


def upscale_volume(
    volume: Volume,
    mask: np.ndarray | None,
    resolver: SuperResolver,
    window: IntensityWindow,
    folder: Path,
    settings: UpscaleSettings,
    key: Mapping[str, Any],
    stop: StopRequest,
) -> Upscaled:
    """Write the super-resolved volume and its companions; holds a few slices at a time.

    One thread reads ahead, one computes, this one composes, and the writers pack on theirs; each
    waits when the next has a slice in hand already. An interrupted run leaves partial files that
    the next one resumes. Finished files keep their journals, for a run that is cut off before it
    has recorded them all: see `data.writing.partial_file.forget_journal`.

    Args:
        volume: clinical CT.
        mask: lung mask (z, y, x), or None to use super-resolution everywhere.
        resolver: enlarges a slice in [-1, 1].
        window: HU to [-1, 1].
        folder: for the outputs.
        settings: how.
        key: `settings.key(...)`; a partial file of another key is not resumed.
        stop: looked at between two slices.

    Raises:
        KeyboardInterrupt: a stop was requested; the slices so far are kept.
    """
    scale = resolver.scale
    columns, rows, slices = volume.size
    fine_size = (columns * scale, rows * scale, slices)
    fine_affine = enlarged_affine(volume.affine, scale)
    ending = ".nii.gz" if settings.output_name.lower().endswith(".gz") else ".nii"
    enlarger = CaseEnlarger(
        resolver, settings.self_ensemble, settings.uncertainty, settings.samples
    )
    consistency = Consistency()

    def writer(name: str, size: tuple[int, int, int], affine: np.ndarray) -> NiftiSliceWriter:
        opened = NiftiSliceWriter(
            folder / name, size, affine, settings.overwrite, resume_key=key, resume=settings.resume
        )
        return stack.enter_context(opened)

    redo = slice_maker(enlarger, window, settings, scale)
    with ExitStack() as stack:
        clinical_writer = writer(f"clinical{ending}", volume.size, volume.affine)
        sr_writer = writer(settings.output_name, fine_size, fine_affine)
        writers = [clinical_writer, sr_writer]
        spread_writer = None
        if settings.uncertainty:
            spread_writer = writer(f"uncertainty{ending}", fine_size, fine_affine)
            writers.append(spread_writer)
        start = common_start(writers, resolver.group_size(rows, columns))
        if settings.volume_statistics:
            gather_statistics(volume, mask, enlarger, window, settings, stop)
        remaining = read_slices(volume, mask, range(start, slices))
        # Closed before the writers, so that no thread computes on after a failure.
        computed = stack.enter_context(
            closing(ahead(compute(ahead(remaining), enlarger, window, settings)))
        )
        shown = preview_slice(volume, mask)
        preview: tuple[np.ndarray, np.ndarray] | None = None
        for index, image, section, enlarged in progress(
            stop.checked(computed), volume.printed_name, unit="slice", total=slices, initial=start
        ):
            result = finish_slice(image, section, enlarged, window, settings, scale)
            inside = ~window.outside(image)
            consistency.add(consistency_errors(np.rint(result), image, scale)[inside])
            clinical_writer.append(image)
            sr_writer.append(result)
            if spread_writer is not None:
                spread_writer.append(spread_in_hu(enlarged, window, section, result.shape))
            if index == shown:
                preview = (image, result)
        if preview is None:  # written by the run that was resumed: computed once more
            image = volume.read_slice(shown)
            preview = (image, redo(image, None if mask is None else mask[shown], shown))
        for opened in writers:  # so that only their names are missing when the first gets its own
            opened.seal()
    plain = replace(settings, texture=0.0, samples=0)
    best = slice_maker(enlarger.best(), window, plain, scale)
    return Upscaled(shown, preview, consistency, slices - start, best)


def gather_statistics(
    volume: Volume,
    mask: np.ndarray | None,
    enlarger: CaseEnlarger,
    window: IntensityWindow,
    settings: UpscaleSettings,
    stop: StopRequest,
) -> None:
    """Take the norm statistics of all slices; arguments as for `upscale_volume`."""
    slices = volume.num_slices
    enlarger.gather(
        lambda: (
            slice_job(index, image, section, window, settings)
            for index, image, section in progress(
                stop.checked(ahead(read_slices(volume, mask, range(slices)))),
                f"{volume.printed_name}, gathering statistics",
                unit="slice",
                total=slices,
            )
        )
    )


def slice_maker(
    enlarger: CaseEnlarger, window: IntensityWindow, settings: UpscaleSettings, scale: int
) -> MakeSlice:
    """What makes a slice of the result, in HU, of one in HU, its lung mask and its index."""

    def make(image: np.ndarray, section: np.ndarray | None, index: int = 0) -> np.ndarray:
        item = next(compute([(index, image, section)], enlarger, window, settings))
        return finish_slice(image, section, item[-1], window, settings, scale)

    return make


def common_start(writers: list[NiftiSliceWriter], group: int) -> int:
    """Bring writers to the same number of slices, a multiple of what shares a network call.

    So every call sees the same slices as in a run without interruption, and the result is the
    same to the last bit.
    """
    start = min(writer.slices_written for writer in writers)
    if start < writers[0].size[2]:
        start -= start % group
    for writer in writers:
        if writer.slices_written > start:
            writer.rewind(start)
    return start


def read_slices(
    volume: Volume, mask: np.ndarray | None, indices: Iterable[int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """(index, slice in HU, its lung mask) one after the other."""
    for index in indices:
        yield index, volume.read_slice(index), None if mask is None else mask[index]


def compute(
    slices: Iterable[tuple[int, np.ndarray, np.ndarray | None]],
    enlarger: CaseEnlarger,
    window: IntensityWindow,
    settings: UpscaleSettings,
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None, Enlarged | None]]:
    """The same with each slice's enlargement; None where it shows no lung."""
    for (index, image, section), enlarged in enlarger.enlarge_items(
        slices, lambda item: slice_job(*item, window, settings)
    ):
        yield index, image, section, enlarged


def slice_job(
    index: int,
    image: np.ndarray,
    section: np.ndarray | None,
    window: IntensityWindow,
    settings: UpscaleSettings,
) -> SliceJob | None:
    """What the network is to do for a slice in HU; None where there is no lung."""
    if section is None:
        return SliceJob(window.to_unit(image), index=index, texture=settings.texture)
    if not section.any():
        return None
    # Super-resolution fades out over one input pixel beyond the mask, see `compose_slice`.
    needed = ndimage.binary_dilation(section != 0, np.ones((3, 3)))
    scope = section if settings.lung_statistics else None
    return SliceJob(window.to_unit(image), scope, needed, index, texture=settings.texture)


def finish_slice(
    image: np.ndarray,
    section: np.ndarray | None,
    enlarged: Enlarged | None,
    window: IntensityWindow,
    settings: UpscaleSettings,
    scale: int,
) -> np.ndarray:
    """A slice of the result in HU, float32 (rows * k, columns * k)."""
    result = enlarge(image, scale, order=3)
    if enlarged is not None:
        result = compose_slice(window.to_physical(enlarged.unit), result, window, section)
    return back_project(result, image, scale) if settings.consistency else result


def spread_in_hu(
    enlarged: Enlarged | None,
    window: IntensityWindow,
    section: np.ndarray | None,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Standard deviation in HU where super-resolution stands, 0 elsewhere."""
    if enlarged is None or enlarged.deviation is None:
        return np.zeros(shape, dtype=np.float32)
    spread = enlarged.deviation * np.float32(window.per_unit)
    if section is None:
        return spread
    scale = shape[0] // section.shape[0]
    return np.where((section != 0).repeat(scale, 0).repeat(scale, 1), spread, np.float32(0))
