"""What the page of each test method shows: the volumes in its folder, read back slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.formats.nifti import read_layout
from data.formats.nifti_slices import nifti_slices
from data.volumes.geometry import enlarged_affine
from data.volumes.volume import Volume
from data.windows import Domain, IntensityWindow
from methods.pages.case_view import CaseImages, Overlay, focus_of
from methods.pages.excerpt import Layer, Slices
from util.images.resampling import enlarge

# Names of the volumes on a page.
INPUT, CUBIC, SR, TRUTH = "input", "cubic", "SR", "truth"
MASK, DIFFERENCE, SPREAD = "lung mask", "difference", "uncertainty"
LEAST_DIFFERENCE, LEAST_SPREAD = 20.0, 5.0  # HU below which the overlay is clear

CONSISTENT = "SR consistent"  # with --consistency: the SR row's result after back-projection


def super_resolved_images(
    folder: Path,
    volume: Volume,
    mask: np.ndarray | None,
    window: IntensityWindow,
    scale: int,
    result: str,
    spread: str | None,
    shown: int,
) -> CaseImages:
    """A super-resolved case: input, cubic interpolation and SR.

    Args:
        folder: of the results.
        volume: the input.
        mask: its lung (z, y, x), None without one.
        window: of the model.
        scale: 2^n.
        result: file of the result in the folder.
        spread: file of the uncertainty in the folder, None without one.
        shown: slice of the preview.
    """
    fine = enlarged_affine(volume.affine, scale)
    layers = [Layer(INPUT, 1, volume.affine), Layer(CUBIC, scale, fine), Layer(SR, scale, fine)]
    overlays = [_difference(scale, fine, "cubic interpolation")]
    if mask is not None:
        overlays.insert(0, _mask(1, volume.affine))
    if spread is not None:
        overlays.append(
            Overlay(
                Layer(SPREAD, scale, fine),
                "Standard deviation of SR over the eight flips and rotations of the input.",
                low=LEAST_SPREAD,
            )
        )

    def read(indices: Sequence[int]) -> Iterator[Slices]:
        spreads = None if spread is None else nifti_slices(folder / spread, indices)
        for index, fine_slice in zip(indices, nifti_slices(folder / result, indices), strict=True):
            image = volume.read_slice(index)
            cubic = enlarge(image, scale, order=3)
            slices = {INPUT: image, CUBIC: cubic, SR: fine_slice}
            slices[DIFFERENCE] = np.abs(fine_slice - cubic)
            if mask is not None:
                slices[MASK] = mask[index] != 0
            if spreads is not None:
                slices[SPREAD] = next(spreads)
            yield slices

    return CaseImages(
        volume.size,
        layers,
        overlays,
        read,
        focus_of(shown, volume.read_slice(shown), window, _at(mask, shown)),
        window,
        (INPUT, SR),
        (CUBIC, SR),
    )


def restored_images(
    folder: Path,
    domain: Domain,
    mask: np.ndarray | None,
    window: IntensityWindow,
    scale: int,
    shown: int,
) -> CaseImages:
    """A volume that was shrunk and restored: input, cubic interpolation, SR and truth.

    Args:
        folder: of the results.
        domain: first word of their names; clinical CT is in HU, micro-CT in its scanner's units.
        mask: lung on the truth's grid (z, y, x), None without one.
        window: of the model.
        scale: 2^n.
        shown: slice of the preview.
    """
    paths = {role: folder / f"{domain}_{role}.nii.gz" for role in ("HR", "LR", "SR")}
    low, high = read_layout(paths["LR"]), read_layout(paths["HR"])
    slices, rows, columns = high.shape
    layers = [
        Layer(INPUT, 1, low.affine),
        *(Layer(name, scale, high.affine) for name in (CUBIC, SR, TRUTH)),
    ]
    unit = "HU" if domain == "clinical" else ""
    least = least_difference(unit, window)
    overlays = [_difference(scale, high.affine, "the truth", unit, least)]
    if mask is not None:
        overlays.insert(0, _mask(scale, high.affine))

    def read(indices: Sequence[int]) -> Iterator[Slices]:
        files = [nifti_slices(paths[role], indices) for role in ("LR", "SR", "HR")]
        for index, image, restored, truth in zip(indices, *files, strict=True):
            cubic = enlarge(image, scale, order=3)[:rows, :columns]
            found = {INPUT: image, CUBIC: cubic, SR: restored, TRUTH: truth}
            found[DIFFERENCE] = np.abs(restored - truth)
            if mask is not None:
                found[MASK] = mask[index] != 0
            yield found

    image = next(nifti_slices(paths["HR"], [shown]))
    index, row, column = focus_of(shown, image, window, _at(mask, shown))
    return CaseImages(
        (low.shape[2], low.shape[1], slices),
        layers,
        overlays,
        read,
        (index, row // scale, column // scale),
        window,
        (SR, TRUTH),
        (CUBIC, SR),
        unit,
    )


def least_difference(unit: str, window: IntensityWindow) -> float:
    """Below it the overlay of a difference is clear: of micro-CT, which has no HU, the same share
    of the window as 20 HU are of the clinical one."""
    return LEAST_DIFFERENCE if unit else (window.high - window.low) / 75


def _at(mask: np.ndarray | None, index: int) -> np.ndarray | None:
    return None if mask is None else mask[index]


def _mask(scale: int, affine: np.ndarray) -> Overlay:
    layer = Layer(MASK, scale, affine)
    return Overlay(layer, "Where super-resolution stands or is scored.", "", "red")


def _difference(
    scale: int, affine: np.ndarray, other: str, unit: str = "HU", low: float = LEAST_DIFFERENCE
) -> Overlay:
    what = f"Absolute difference of SR from {other}."
    return Overlay(Layer(DIFFERENCE, scale, affine), what, unit, "hot", low)
