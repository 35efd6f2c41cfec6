"""TIFF volumes: one multi-page file, or a folder of single-page files.

TIFF states no orientation. Rows run from anterior to posterior and columns from the patient's
right to left, as in an axial CT slice on the screen and as ITK reads TIFF: the RAS+ affine is
diag(-x, -y, z) with the first voxel's centre at 0, and ITK-SNAP shows the pages upright. The voxel
size is taken from OME-XML, ImageJ's description or the resolution tags.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from data.formats.tiff_pages import decode_page, grey_type, open_tiff, stack_series, stack_shape
from data.volumes.cache import (
    cached_file,
    decoded_name,
    file_key,
    files_key,
    map_slices,
    write_slices,
)
from data.volumes.checks import check_all_finite
from data.volumes.geometry import millimetres_per
from data.volumes.mapping import map_file
from data.volumes.names import TIFF_ENDINGS, ending_of, is_mask_name, natural_key
from data.volumes.volume import Volume
from util.errors import UserError

Spacing = tuple[float, float, float]
CENTIMETRE = 3


def stated_spacing(tiff: tifffile.TiffFile, slices: int, stack_folder: bool) -> Spacing | None:
    """Voxel size (x, y, z) in mm, or None where the file does not clearly state one.

    - OME: PhysicalSizeX, Y and, for more than one slice, Z, with their units.
    - ImageJ: the resolution and a unit of length, and for more than one slice `spacing`.
    - Otherwise the resolution tags, if they count pixels per centimetre. Pixels per inch are not
      believed: they are mostly a printer's default.
    Where the format has no place for a distance of slices (single-page files of a folder, the
    bare resolution tags), square pixels are taken as faces of cubes: micro-CT is isotropic.

    Args:
        tiff: the (first) file.
        slices: slices of the volume.
        stack_folder: whether the file is one of many that hold one slice each.
    """
    if tiff.is_ome and tiff.ome_metadata:
        return _ome_spacing(tiff.ome_metadata, 1 if stack_folder else slices)
    pixel = _pixel_pitch(tiff)
    if pixel is None:
        return None
    x, y = pixel
    if tiff.is_imagej:
        metadata = tiff.imagej_metadata or {}
        unit = millimetres_per(str(metadata.get("unit", "")))
        if unit is None:
            return None
        z = _positive(metadata.get("spacing"))
        if z is None and (stack_folder or slices == 1):
            z = _cube(x, y)
        return _spacing(x * unit, y * unit, None if z is None else z * unit)
    if _tag(tiff, "ResolutionUnit") != CENTIMETRE:
        return None
    z = _cube(x, y)
    return _spacing(x * 10.0, y * 10.0, None if z is None else z * 10.0)


def _ome_spacing(xml: str, slices: int) -> Spacing | None:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None
    sizes: list[float | None] = []
    for axis in "XYZ":
        size = _positive(pixels.get(f"PhysicalSize{axis}"))
        unit = millimetres_per(pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m"))
        sizes.append(None if size is None or unit is None else size * unit)
    x, y, z = sizes
    if z is None and slices == 1 and x is not None and y is not None:
        z = _cube(x, y)
    return _spacing(x, y, z)


def _pixel_pitch(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    """Width and height of a pixel in the file's unit, from the resolution tags."""
    pitches = []
    for name in ("XResolution", "YResolution"):
        value = _tag(tiff, name)
        if not isinstance(value, tuple) or len(value) != 2:
            return None
        pixels, units = value
        if pixels <= 0 or units <= 0:
            return None
        pitches.append(units / pixels)
    return pitches[0], pitches[1]


def _tag(tiff: tifffile.TiffFile, name: str) -> object:
    tag = tiff.pages.first.tags.get(name)
    return None if tag is None else tag.value


def _cube(x: float, y: float) -> float | None:
    return x if math.isclose(x, y, rel_tol=1e-3) else None


def _positive(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _spacing(x: float | None, y: float | None, z: float | None) -> Spacing | None:
    return None if x is None or y is None or z is None else (x, y, z)


def tiff_files(folder: Path) -> list[Path]:
    """TIFF files directly inside a folder in natural order, hidden files and masks left out."""
    return sorted(
        (
            path
            for path in folder.iterdir()
            if ending_of(path) in TIFF_ENDINGS
            and not path.name.startswith(".")
            and not is_mask_name(path)
            and path.is_file()
        ),
        key=lambda path: natural_key(path.name),
    )


def order_by_number(files: Sequence[Path], folder: Path) -> list[Path]:
    """Sort slices by the number in their names: `rec_9.tif` before `rec_10.tif`.

    The slice number is the number that differs from file to file; others (a date, a sample's
    number) may stand in the name as well.

    Raises:
        UserError: names of several series, no single slice number, or a missing number.
    """
    if len(files) < 2:
        return list(files)
    patterns = {re.sub(r"[0-9]+", "#", path.name.lower()): path.name for path in files}
    if len(patterns) > 1:
        one, other, *_ = patterns.values()
        raise UserError(
            f"TIFF folder {folder} holds names of different kinds ({one}, {other}): "
            "give a folder with the slices of one stack, named alike but for a number"
        )
    rows = [[int(number) for number in re.findall(r"[0-9]+", path.name)] for path in files]
    columns = [list(column) for column in zip(*rows, strict=True) if len(set(column)) == len(files)]
    if not columns:
        raise UserError(
            f"TIFF folder {folder}: no number in the names tells the slices apart "
            f"({files[0].name}, {files[1].name}): number the slices of one stack"
        )
    regular = [column for column in columns if not _missing(column)]
    numbers = regular[-1] if regular else columns[-1]
    ordered = [path for _, path in sorted(zip(numbers, files, strict=True))]
    missing = _missing(numbers)
    if missing:
        before, number, after = missing
        names = dict(zip(numbers, files, strict=True))
        raise UserError(
            f"TIFF folder {folder}: slice number {number} is missing between "
            f"{names[before].name} and {names[after].name}: add it, or renumber the slices"
        )
    return ordered


def _missing(numbers: Sequence[int]) -> tuple[int, int, int] | None:
    """First gap in a series of numbers of constant step: (before, missing, after)."""
    ordered = sorted(numbers)
    steps = [after - before for before, after in pairwise(ordered)]
    usual = min(Counter(steps).items(), key=lambda item: (-item[1], item[0]))[0]
    for before, after in pairwise(ordered):
        if after - before != usual:
            return before, before + usual, after
    return None


def read_tiff(path: Path, cache_dir: Path, tiff_spacing: Spacing | None) -> Volume:
    """Read a multi-page TIFF, in place if it is uncompressed and contiguous.

    See `data.formats.readers.read_volume`.
    """
    source = str(path)
    with open_tiff(path) as tiff:
        series = stack_series(tiff, source)
        shape = stack_shape(series, source)
        dtype = grey_type(series.dtype, source)
        spacing = tiff_spacing or stated_spacing(tiff, shape[0], stack_folder=False)
        offset, byte_order = series.dataoffset, tiff.byteorder
    if offset is None or series.dtype != dtype:
        unpacked = cached_file(
            cache_dir, decoded_name(file_key(path)), lambda target: _decode_file(path, target)
        )
        return _volume(map_slices(unpacked), source, spacing)
    array = map_file(path, dtype.newbyteorder(byte_order), shape, offset, source)
    check_all_finite(array, source)
    return _volume(array, source, spacing)


def read_tiff_folder(folder: Path, cache_dir: Path, tiff_spacing: Spacing | None) -> Volume:
    """Read a folder of single-page TIFF files, sorted by the number in their names.

    See `data.formats.readers.read_volume`.
    """
    files = order_by_number(tiff_files(folder), folder)
    with open_tiff(files[0]) as tiff:
        spacing = tiff_spacing or stated_spacing(tiff, len(files), stack_folder=True)
    unpacked = cached_file(
        cache_dir,
        decoded_name(files_key(files)),
        lambda target: _decode_files(files, target, folder),
    )
    return _volume(map_slices(unpacked), str(folder), spacing)


def count_slices(path: Path) -> int:
    """Slices of one TIFF file; a file of a stack folder has one."""
    with open_tiff(path) as tiff:
        return stack_shape(stack_series(tiff, str(path)), str(path))[0]


def first_page(path: Path) -> np.ndarray:
    """Stored values (rows, columns) of a file's first page."""
    with open_tiff(path) as tiff:
        shape = stack_shape(stack_series(tiff, str(path)), str(path))
        page = tiff.pages.first
        return decode_page(page, shape[1:], grey_type(page.dtype, str(path)), path)


def check_tiff_spacing(spacing: Spacing) -> Spacing:
    """Refuse voxel sizes that are not three positive numbers (mm along x, y, z)."""
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise UserError(f"TIFF spacing {spacing} mm: give three positive numbers, x y z in mm")
    return spacing


def _volume(array: np.ndarray, source: str, spacing: Spacing | None) -> Volume:
    x, y, z = spacing or (1.0, 1.0, 1.0)
    affine = np.diag([-x, -y, z, 1.0])
    return Volume(array, affine, source, spacing_known=spacing is not None)


def _decode_file(path: Path, target: Path) -> None:
    """Decode the pages of one file to the cache, one at a time."""
    source = str(path)
    with open_tiff(path) as tiff:
        series = stack_series(tiff, source)
        shape = stack_shape(series, source)
        dtype = grey_type(series.dtype, source)
        pages = (decode_page(page, shape[1:], dtype, path) for page in series.pages)
        write_slices(target, pages, shape, dtype, source)


def _decode_files(files: Sequence[Path], target: Path, folder: Path) -> None:
    """Decode the single pages of a stack folder to the cache, one at a time."""
    source = str(folder)
    with open_tiff(files[0]) as tiff:
        series = stack_series(tiff, str(files[0]))
        _, rows, columns = stack_shape(series, str(files[0]))
        dtype = grey_type(series.dtype, str(files[0]))

    def slices() -> Iterator[np.ndarray]:
        for path in files:
            with open_tiff(path) as tiff:
                if stack_shape(stack_series(tiff, str(path)), str(path))[0] != 1:
                    raise UserError(
                        f"{path} holds several pages: a stack folder has one slice per file, "
                        "give a multi-page file by its own name"
                    )
                yield decode_page(tiff.pages.first, (rows, columns), dtype, path)

    write_slices(target, slices(), (len(files), rows, columns), dtype, source)
