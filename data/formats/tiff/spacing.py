"""Voxel sizes that TIFF files state: OME-XML, ImageJ's description, the resolution tags."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import tifffile

from data.volumes.geometry import millimetres_per

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
        # yunit and zunit are there where they differ from the one of x.
        words = [
            metadata.get(name, metadata.get("unit", "")) for name in ("unit", "yunit", "zunit")
        ]
        of_x, of_y, of_z = (millimetres_per(str(word)) for word in words)
        if of_x is None or of_y is None or of_z is None:
            return None
        z = _positive(metadata.get("spacing"))
        if z is None and (stack_folder or slices == 1):
            z, of_z = _cube(x * of_x, y * of_y), 1.0
        return _spacing(x * of_x, y * of_y, None if z is None else z * of_z)
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
