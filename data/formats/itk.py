"""NRRD and MetaImage: geometry through ITK, voxels mapped in place or unpacked once.

ITK would read the whole volume into memory, so the place of the voxels and how they are packed is
taken from the text header here.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from data.volumes.cache import (
    cached_file,
    files_key,
    gzip_blocks,
    map_unpacked,
    write_blocks,
    zlib_blocks,
)
from data.volumes.checks import check_affine, check_all_finite, check_voxel_type, volume_shape
from data.volumes.geometry import LPS_TO_RAS, millimetres_per
from data.volumes.mapping import map_file
from data.volumes.volume import Volume
from util.errors import UserError

# ITK's warnings would land in the middle of a progress bar; what matters is raised as UserError.
sitk.ProcessObject.SetGlobalWarningDisplay(False)

LONGEST_LINE = 1 << 16
MOST_AXES = 10  # of MetaIO
MOST_PADDING = 1 << 12  # bytes behind voxels: whole blocks
_SAID: set[str] = set()  # files that a line was said of
LONGEST_SHOWN = 60  # characters of a field in a message
TRUE, FALSE = ("t", "1", "y"), ("f", "0", "n")

NUMPY_TYPES = {
    sitk.sitkUInt8: "u1",
    sitk.sitkInt8: "i1",
    sitk.sitkUInt16: "u2",
    sitk.sitkInt16: "i2",
    sitk.sitkUInt32: "u4",
    sitk.sitkInt32: "i4",
    sitk.sitkUInt64: "u8",
    sitk.sitkInt64: "i8",
    sitk.sitkFloat32: "f4",
    sitk.sitkFloat64: "f8",
    sitk.sitkComplexFloat32: "c8",
    sitk.sitkComplexFloat64: "c16",
}
# A list axis of length 1 makes a vector of one component, whose voxels lie as those of an image.
NUMPY_TYPES |= {
    getattr(sitk, f"sitkVector{name}"): NUMPY_TYPES[getattr(sitk, f"sitk{name}")]
    for name in (
        "UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32",
        "Float64",
    )
}  # fmt: skip
# "data file: LIST" and "rec_%03d.raw 1 100 1", by NRRD and MetaImage alike.
SEVERAL_FILES = re.compile(r"(LIST( [0-9]+D?)?)|(.*%[0-9]*d\S*( -?[0-9]+){3,4})", re.IGNORECASE)


@dataclass(frozen=True)
class VoxelPlace:
    """Place of the voxels."""

    file: Path  # file that holds them: the header's own or a detached one
    offset: int  # bytes before them (before the packed stream, if packed); -1: they end the file
    packing: str  # "raw", "gzip" or "zlib"
    byte_order: str  # "<" little, ">" big endian
    spacing_stated: bool  # whether the header states voxel sizes
    millimetres: float  # length of the header's unit in mm
    packed_bytes: int = 0  # length of the packed stream; 0 where the header does not say


def nrrd_place(path: Path) -> VoxelPlace:
    """Place of the voxels of a .nrrd or .nhdr file (http://teem.sourceforge.net/nrrd).

    Raises:
        UserError: text, hexadecimal or bzip2 encoding, data spread over several files, axes in
            several units of length.
    """
    with path.open("rb") as stream:
        fields = _nrrd_fields(stream)
        offset = stream.tell()
    encoding = fields.get("encoding", "raw").lower()
    packing = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}.get(encoding)
    skip = int(fields.get("byteskip", "0"))
    if packing is None or int(fields.get("lineskip", "0")) or (skip and packing != "raw"):
        raise UserError(
            f'{path} has encoding "{encoding}" or skipped lines: save it with raw or gzip encoding'
        )
    detached = fields.get("datafile")
    file = path
    if detached is not None:
        file, offset = _detached(path, detached), 0
    stated = fields.get("spaceunits") or fields.get("units", "")
    units = {millimetres_per(unit) for unit in re.findall(r'"([^"]*)"', stated) if unit.strip()}
    lengths = {unit for unit in units if unit is not None}
    if len(lengths) > 1:
        raise UserError(
            f"{path} states the units {stated[:LONGEST_SHOWN]}, expected one unit of length for "
            "all axes: save it in mm"
        )
    return VoxelPlace(
        file=file,
        offset=skip if skip == -1 else offset + skip,
        packing=packing,
        byte_order=">" if fields.get("endian", "").lower() == "big" else "<",
        # "pixel", "none" and seconds of a stack are no sizes.
        spacing_stated=_states_spacing(fields) and None not in units,
        millimetres=next(iter(lengths), 1.0),
    )


def _states_spacing(fields: dict[str, str]) -> bool:
    """Whether a NRRD header states the size of a voxel along each of its axes."""
    axes = min(3, int(fields.get("dimension", "3")))
    if "spacedirections" in fields:
        return fields["spacedirections"].count("(") >= axes
    return sum(word.lower() != "nan" for word in fields.get("spacings", "").split()) >= axes


def meta_place(path: Path) -> VoxelPlace:
    """Place of the voxels of a .mha or .mhd file (https://itk.org/Wiki/MetaIO/Documentation).

    Raises:
        UserError: text voxels, or data spread over several files.
    """
    with path.open("rb") as stream:
        fields = _meta_fields(stream)
        offset = stream.tell()
    # MetaIO itself prints on such files; ask first.
    lacking = [name for name in ("NDims", "DimSize", "ElementType") if name.lower() not in fields]
    if lacking:
        raise UserError(
            f"{path} cannot be read as MetaImage (its header lacks {', '.join(lacking)}): "
            "give a whole file, or convert it to NIfTI"
        )
    axes, sizes = int(fields["ndims"]), fields["dimsize"].split()
    if not 1 <= axes <= MOST_AXES or len(sizes) != axes:  # MetaIO itself would crash
        raise UserError(
            f"{path} states {axes} axes and {len(sizes)} sizes: give a whole file, or convert it "
            "to NIfTI"
        )
    if not _is_true(fields.get("binarydata", "True"), path):
        raise UserError(f"{path} holds its voxels as text: save it as binary data")
    scaling = [
        float(fields.get(f"elementtointensityfunction{word}", default))
        for word, default in (("slope", "1"), ("offset", "0"))
    ]
    if scaling != [1.0, 0.0]:
        raise UserError(
            f"{path} states ElementToIntensityFunction slope {scaling[0]:g} and offset "
            f"{scaling[1]:g}, which most programs leave out: apply it, and save without"
        )
    skip = int(fields.get("headersize", "0"))
    name = fields.get("elementdatafile", "")
    file = path
    if name.upper() != "LOCAL":
        file, offset = _detached(path, name), 0
    elif skip > 0:
        offset = 0  # HeaderSize counts from the start of the file, the text header included
    order = fields.get("elementbyteordermsb", fields.get("binarydatabyteordermsb", "false"))
    packed = _is_true(fields.get("compresseddata", "False"), path)
    return VoxelPlace(
        file=file,
        offset=skip if skip == -1 else offset + skip,
        packing="zlib" if packed else "raw",
        byte_order=">" if _is_true(order, path) else "<",
        spacing_stated="elementspacing" in fields or "elementsize" in fields,
        millimetres=millimetres_per(fields.get("distanceunits", "")) or 1.0,
        packed_bytes=int(fields.get("compresseddatasize", "0")) if packed else 0,
    )


def _is_true(word: str, path: Path) -> bool:
    """A yes or no of MetaIO, which looks at the first letter alone."""
    first = word[:1].lower()
    if first not in TRUE + FALSE:
        raise UserError(f'{path} states "{word}", expected True or False: save it again')
    return first in TRUE


def _nrrd_fields(stream: BinaryIO) -> dict[str, str]:
    """Header fields by lower-case name without blanks; the stream stands behind the blank line."""
    fields: dict[str, str] = {}
    while line := stream.readline(LONGEST_LINE).decode("utf-8", "replace").strip():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[name.lower().replace(" ", "")] = value.strip()
    return fields


def _meta_fields(stream: BinaryIO) -> dict[str, str]:
    """Header fields by lower-case name up to ElementDataFile, which is the last by definition."""
    fields: dict[str, str] = {}
    while line := stream.readline(LONGEST_LINE).decode("utf-8", "replace"):
        name, _, value = line.partition("=")
        fields[name.strip().lower()] = value.strip()
        if name.strip().lower() == "elementdatafile":
            break
    return fields


def _detached(header: Path, name: str) -> Path:
    """File with the voxels, named relative to its header."""
    file = header.parent / name
    if SEVERAL_FILES.fullmatch(name):
        raise UserError(f"{header} spreads its voxels over several files: save it as one file")
    if not name or not file.is_file():
        raise UserError(
            f'{header} names "{name}" as the file of its voxels, which is not there: '
            "put it beside the header"
        )
    return file


def read_itk(path: Path, cache_dir: Path) -> Volume:
    """Read NRRD or MetaImage; see `data.formats.readers.read_volume`."""
    source = str(path)
    meta = path.name.lower().endswith((".mha", ".mhd"))
    place = _place(path, meta)
    reader = _read_information(path, "MetaImageIO" if meta else "NrrdImageIO")
    if reader.GetNumberOfComponents() != 1:
        raise UserError(
            f"{source} has {reader.GetNumberOfComponents()} components per voxel (RGB or vector): "
            "save it with one value per voxel"
        )
    shape = volume_shape(reader.GetSize(), source)
    if reader.GetPixelID() not in NUMPY_TYPES:
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise UserError(f"{source} has voxels of type {kind}: save it with one number per voxel")
    dtype = np.dtype(place.byte_order + NUMPY_TYPES[reader.GetPixelID()])
    check_voxel_type(dtype, source)
    affine = _ras_affine(reader)
    affine[:3] *= place.millimetres
    affine = check_affine(affine, shape[0], source)
    array = _map(path, place, dtype, shape, cache_dir)
    return Volume(array, affine, source, spacing_known=place.spacing_stated)


def _read_information(path: Path, image_io: str) -> sitk.ImageFileReader:
    """ITK's reader of the header; no voxel is read."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{path} cannot be read ({reason}): give a whole file, or convert it to NIfTI"
        ) from error
    return reader


def _place(path: Path, meta: bool) -> VoxelPlace:
    try:
        return meta_place(path) if meta else nrrd_place(path)
    except ValueError as error:
        raise UserError(f"{path} has a broken header ({error}): save it again") from error


def _ras_affine(reader: sitk.ImageFileReader) -> np.ndarray:
    """ITK's origin, spacing and direction (LPS) as a RAS+ affine; missing axes are unit axes."""
    dimension = reader.GetDimension()
    axes = min(dimension, 3)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))
    affine = np.eye(4)
    affine[:axes, :axes] = direction[:axes, :axes] * np.array(reader.GetSpacing()[:axes])
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    return LPS_TO_RAS @ affine


def _say_what_is_left(file: Path, end: int, source: str) -> None:
    """Tell, once a file, of bytes behind the voxels: by a hand-written header with a wrong type or
    size the first of them would be read as if they were all."""
    beyond = file.stat().st_size - end
    if beyond >= MOST_PADDING and source not in _SAID:
        _SAID.add(source)
        print(
            f"warning: {file} holds {beyond} bytes more than the header of {source} promises: are "
            "its size and type right?",
            file=sys.stderr,
        )


def _map(
    path: Path, place: VoxelPlace, dtype: np.dtype, shape: tuple[int, int, int], cache_dir: Path
) -> np.ndarray:
    """Voxels in place where they lie there raw, else unpacked to the cache once."""
    source = str(path)
    voxel_bytes = math.prod(shape) * dtype.itemsize
    if place.packing == "raw":
        offset = place.offset
        if offset == -1:
            offset = max(place.file.stat().st_size - voxel_bytes, 0)
        array = map_file(place.file, dtype, shape, offset, source)
        _say_what_is_left(place.file, offset + voxel_bytes, source)
        check_all_finite(array, source)
        return array

    there = place.file.stat().st_size - place.offset
    if place.packed_bytes > there or (place.file != path and 0 < place.packed_bytes != there):
        raise UserError(
            f"{source} is truncated or grown: it holds {there} packed bytes, its header promises "
            f"{place.packed_bytes}: copy or export it again"
        )

    def unpack(target: Path) -> None:
        read_blocks = gzip_blocks if place.packing == "gzip" else zlib_blocks
        with place.file.open("rb") as stream:
            stream.seek(place.offset)
            write_blocks(target, read_blocks(stream, source), voxel_bytes, source)
        check_all_finite(map_file(target, dtype, shape, 0, source), source)

    files = [path] if place.file == path else [path, place.file]
    unpacked = cached_file(cache_dir, f"{files_key(files)}.raw", unpack)
    return map_unpacked(unpacked, dtype, shape)
