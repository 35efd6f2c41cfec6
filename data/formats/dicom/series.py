"""A DICOM series folder as a volume on a regular grid: gaps and tilts found, decoded once in slice
order, then mapped from the cache."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from data.formats.dicom.headers import SliceHeader
from data.formats.dicom.identity import identity_words
from data.formats.dicom.pixels import PixelReader, check_pixels
from data.formats.dicom.slice_files import frames_of, read_slice_headers, storage_classes
from data.volumes.cache import cached_file, decoded_name, files_key, map_slices, write_slices
from data.volumes.checks import check_affine
from data.volumes.geometry import LPS_TO_RAS
from data.volumes.volume import Volume
from util.errors import UserError, some_of
from util.privacy import hide

RELATIVE_TOLERANCE = 0.01
"""Allowed deviation of a slice distance, as a part of the series' slice distance."""
ROUNDING_MM = 0.0101
"""Allowed too, up to a twentieth of the distance: positions are often written to 0.01 mm."""
SAME_DIRECTION = 1e-3
NO_DIRECTION = 0.02
"""Deviation from length 1 and from right angles beyond which directions are none."""
_SAID: set[str] = set()  # folders that a line was said of


def single_series(headers: Sequence[SliceHeader], folder: Path) -> list[SliceHeader]:
    """The headers, if all belong to one series of grey slices on one grid, all of it there.

    Raises:
        UserError: no slice at all; several series (some named); what `check_pixels` refuses; slices
            that differ in size, pixel spacing or orientation, or state no position.
    """
    if not headers:
        there = some_of(storage_classes(folder)) or "no DICOM"
        raise UserError(
            f"{folder} holds no DICOM slice, got {there}: give a folder of one CT series; "
            "segmentations and contours are read as NIfTI, to which other programs turn them"
        )
    ordered = sorted(headers, key=lambda header: header.series_uid)
    series = [list(group) for _, group in groupby(ordered, key=lambda header: header.series_uid)]
    if len(series) > 1:
        shown = [
            f'"{group[0].text("SeriesDescription")[:24] or "no description"}" ({len(group)} '
            f"slices, UID ..{group[0].series_uid[-12:] or 'none'})"
            for group in series
        ]
        raise UserError(
            f"{folder} holds {len(series)} DICOM series: {some_of(shown)}: "
            "choose one by giving a folder that holds only its files"
        )
    first = headers[0]
    for header in headers:
        check_pixels(header)
        if header.position is None and len(headers) > 1:
            raise UserError(
                f"DICOM slice {header.path} states no ImagePositionPatient, its place in the "
                "series is unknown: give the scanner's original series"
            )
        _check_alike(first, header, folder)
    return list(headers)


def order_slices(headers: Sequence[SliceHeader], folder: Path) -> list[SliceHeader]:
    """Slices sorted by position along the slice normal (row direction x column direction).

    Raises:
        UserError: two slices at one position, a gap or varying distances (where, in mm), or
            slices shifted sideways (tilted gantry).
    """
    if len(headers) == 1:
        return list(headers)
    normal = _normal(headers[0])
    ordered = sorted(headers, key=lambda header: float(_position(header) @ normal))
    positions = np.array([_position(header) for header in ordered])
    heights = positions @ normal
    gaps = np.diff(heights)
    distance = _usual_distance(gaps)
    tolerance = max(RELATIVE_TOLERANCE * distance, min(ROUNDING_MM, distance / 20))
    for index, gap in enumerate(gaps):
        names = f"{ordered[index].shown} and {ordered[index + 1].shown}"
        at, after = heights[index], heights[index + 1]
        if gap <= 0.1 * distance:
            _check_one_acquisition(ordered, folder, "lie in one place")
            one = ordered[index]
            if one.path == ordered[index + 1].path and np.ptp(heights) <= SAME_DIRECTION:
                raise UserError(
                    f"DICOM file {one.path} holds {one.frames} frames without a place for each: "
                    "export it again, or convert it with its slice distance"
                )
            raise UserError(
                f"DICOM folder {folder} holds two slices at {at:.2f} mm ({names}): "
                "give one time point or energy of one series, each slice once"
            )
        if abs(gap - distance) > tolerance:
            fault = "slices are missing" if gap > 1.5 * distance else "slice distances vary"
            raise UserError(
                f"DICOM folder {folder}: {fault} between {at:.2f} and {after:.2f} mm ({names}), "
                f"{gap:.3f} mm apart where {distance:.3f} mm is usual: "
                "add the missing files or resample the series to one distance"
            )
    _check_straight(positions, heights, normal, tolerance, folder)
    if _alternate([header.acquisition for header in ordered]):
        _check_one_acquisition(ordered, folder, "alternate")
    return ordered


def series_affine(ordered: Sequence[SliceHeader]) -> tuple[np.ndarray, bool]:
    """RAS+ affine from the first and last position, and whether all voxel sizes are stated.

    A single slice takes its stated thickness as voxel size along z.
    """
    first, last = ordered[0], ordered[-1]
    known = first.spacing is not None
    if len(ordered) > 1:
        step = (_position(last) - _position(first)) / (len(ordered) - 1)
    else:
        thickness = first.thickness
        known = known and bool(thickness)
        step = _normal(first) * (thickness or 1.0)
    affine = np.eye(4)
    # Directions rounded to few digits are not of length 1, which would change the voxel size.
    lengths = np.linalg.norm(first.axes, axis=1)
    affine[:3, :2] = first.axes.T / lengths * np.array(first.spacing or (1.0, 1.0))
    affine[:3, 2] = step
    if first.position is not None:
        affine[:3, 3] = first.position
    return LPS_TO_RAS @ affine, known


def _usual_distance(gaps: np.ndarray) -> float:
    """The (lower) median distance of slices, those at one and the same place left out; in mm."""
    apart = np.sort(gaps[gaps > 1e-6])
    return float(apart[(len(apart) - 1) // 2]) if len(apart) else 0.0


def _alternate(acquisitions: Sequence[tuple[str, ...]]) -> bool:
    """Whether acquisitions of several slices each lie between each other. Blocks one above the
    other are one scan, and so are slices that were each acquired by themselves."""
    blocks = [key for key, _ in groupby(acquisitions)]
    sizes = Counter(acquisitions)
    return len(blocks) > len(sizes) and min(sizes.values()) > 1


def _check_one_acquisition(ordered: Sequence[SliceHeader], folder: Path, how: str) -> None:
    """Refuse several acquisitions or time points in one series, by what their slices do."""
    sizes = Counter(header.acquisition for header in ordered)
    if len(sizes) > 1:
        shown = [
            f"{' '.join(filter(None, key)) or 'without a number'}: {count} slices"
            for key, count in sorted(sizes.items())
        ]
        raise UserError(
            f"DICOM folder {folder} holds {len(sizes)} acquisitions or time points whose slices "
            f"{how} ({some_of(shown)}; AcquisitionNumber, TemporalPositionIdentifier): give a "
            "folder with the files of one"
        )


def _check_alike(first: SliceHeader, other: SliceHeader, folder: Path) -> None:
    """Refuse slices of another size, spacing or orientation (for example a scout view), of another
    patient, or with values in other units."""
    differing = [
        name
        for name, alike in (
            ("size", first.size == other.size),
            ("patient", first.text("PatientID") == other.text("PatientID")),
            (
                "whether they state a rescale",
                first.states_rescale == other.states_rescale
                or first.rescale == other.rescale == (1.0, 0.0),
            ),
            ("orientation", np.allclose(first.axes, other.axes, atol=SAME_DIRECTION)),
            (
                "pixel spacing",
                (first.spacing is None) == (other.spacing is None)
                and np.allclose(first.spacing or 0, other.spacing or 0, rtol=1e-3, atol=0),
            ),
        )
        if not alike
    ]
    if differing:
        raise UserError(
            f"DICOM folder {folder}: {first.shown} and {other.shown} differ in "
            f"{' and '.join(differing)}: leave only the slices of one scan in the folder"
        )


def _check_straight(
    positions: np.ndarray, heights: np.ndarray, normal: np.ndarray, tolerance: float, folder: Path
) -> None:
    """Refuse slices whose corners do not lie above each other (a sheared, not a boxed, grid)."""
    sideways = positions - np.outer(heights, normal)
    steps = np.linalg.norm(np.diff(sideways, axis=0), axis=1)
    drift = float(np.linalg.norm(sideways[-1] - sideways[0]))
    worst = int(np.argmax(steps))
    if steps[worst] > tolerance or drift > tolerance * len(heights) ** 0.5:
        angle = np.degrees(np.arctan2(drift, heights[-1] - heights[0]))
        raise UserError(
            f"DICOM folder {folder}: slices are shifted sideways by {steps[worst]:.3f} mm between "
            f"{heights[worst]:.2f} and {heights[worst + 1]:.2f} mm (gantry tilt {angle:.1f} "
            "degrees in all): resample the series to an untilted grid"
        )


def _normal(header: SliceHeader) -> np.ndarray:
    if not np.allclose(header.axes @ header.axes.T, np.eye(2), atol=NO_DIRECTION):
        raise UserError(
            f"DICOM slice {header.path} states directions {header.axes.tolist()} that are not of "
            "length 1 at right angles: export the series again"
        )
    normal = np.cross(header.axes[0], header.axes[1])
    return normal / float(np.linalg.norm(normal))


def _position(header: SliceHeader) -> np.ndarray:
    if header.position is None:
        raise ValueError(f"{header.path} has no position")  # single_series refused it before
    return header.position


def read_dicom(path: Path, cache_dir: Path) -> Volume:
    """Read the one DICOM series of a folder, or of a file with many frames; see
    `data.formats.readers.read_volume`.

    Slices come in the order of their positions, whatever their names; rescale slope and
    intercept are applied. Values are kept as int16 where they fit, else int32 or float32.

    Raises:
        UserError: a single slice was named; what `single_series` and `order_slices` refuse.
    """
    source = str(path)
    headers = read_slice_headers(path) if path.is_dir() else frames_of(path)
    ordered = order_slices(single_series(headers, path), path)
    affine, spacing_known = series_affine(ordered)
    affine = check_affine(affine, len(ordered), source)
    patients = {header.text("PatientName"): header.dataset for header in ordered}
    for dataset in patients.values():
        hide(identity_words(dataset))
    _say_what_is_assumed(ordered, source)
    name = decoded_name(files_key(list(dict.fromkeys(header.path for header in ordered))))
    unpacked = cached_file(cache_dir, name, lambda target: _decode(ordered, target, source))
    return Volume(
        map_slices(unpacked),
        affine,
        source,
        spacing_known=spacing_known,
    )


def _say_what_is_assumed(ordered: Sequence[SliceHeader], source: str) -> None:
    """Tell, once a folder, of tags that a CT should have and that are taken as other readers do."""
    if source in _SAID:
        return
    _SAID.add(source)
    first = ordered[0]
    is_ct = first.text("Modality") in ("CT", "") and "ModalityLUTSequence" not in first.dataset
    assumed = {"ImageOrientationPatient": "they are taken as axial"}
    assumed |= {"RescaleIntercept": "stored values are taken as HU"} if is_ct else {}
    for keyword, taken in assumed.items():
        lacking = sum(not header.text(keyword) for header in ordered)
        if lacking:
            print(
                f"warning: {lacking} of {len(ordered)} DICOM slices of {source} state no "
                f"{keyword}: {taken}",
                file=sys.stderr,
            )


def _decode(ordered: Sequence[SliceHeader], target: Path, source: str) -> None:
    """Write all slices with the narrowest type that holds them, int16 for nearly every CT."""
    columns, rows = ordered[0].size
    shape = (len(ordered), rows, columns)
    for dtype in (np.dtype("<i2"), np.dtype("<i4")):
        try:
            write_slices(target, _integers(ordered, dtype), shape, dtype, source)
        except _DoesNotFitError:
            continue
        return
    read = PixelReader().read
    write_slices(target, map(read, ordered), shape, np.dtype("<f4"), source)


class _DoesNotFitError(Exception):
    """A slice holds values outside the integer type tried."""


def _integers(ordered: Sequence[SliceHeader], dtype: np.dtype) -> Iterator[np.ndarray]:
    limits = np.iinfo(dtype)
    reader = PixelReader()
    for header in ordered:
        pixels = reader.read(header)
        if pixels.dtype.kind == "f" or pixels.min() < limits.min or pixels.max() > limits.max:
            raise _DoesNotFitError
        yield pixels
