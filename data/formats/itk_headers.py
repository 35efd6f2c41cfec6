"""Where the voxels of NRRD and MetaImage files lie and how they are packed.

Size, type and geometry come from ITK's own readers; ITK would, however, read the whole volume
into memory, so the place of the voxels is taken from the text header here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data.volumes.units import millimetres_per
from util.errors import UserError

LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class VoxelPlace:
    """Place of the voxels.

    Attributes:
        file: file that holds them: the header's own or a detached one.
        offset: bytes before them (before the packed stream, if packed); -1: they end the file.
        packing: "raw", "gzip" or "zlib".
        byte_order: "<" little, ">" big endian.
        spacing_stated: whether the header states voxel sizes.
        millimetres: length of the header's unit in mm.
    """

    file: Path
    offset: int
    packing: str
    byte_order: str
    spacing_stated: bool
    millimetres: float


def nrrd_place(path: Path) -> VoxelPlace:
    """Place of the voxels of a .nrrd or .nhdr file (http://teem.sourceforge.net/nrrd).

    Raises:
        UserError: text, hexadecimal or bzip2 encoding, data spread over several files.
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
    units = {millimetres_per(word) for word in fields.get("spaceunits", "").split('"')} - {None}
    return VoxelPlace(
        file=file,
        offset=skip if skip == -1 else offset + skip,
        packing=packing,
        byte_order=">" if fields.get("endian", "").lower() == "big" else "<",
        spacing_stated="spacedirections" in fields or "spacings" in fields,
        millimetres=(units.pop() or 1.0) if len(units) == 1 else 1.0,
    )


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
    if fields.get("binarydata", "true").lower() == "false":
        raise UserError(f"{path} holds its voxels as text: save it as binary data")
    skip = int(fields.get("headersize", "0"))
    name = fields.get("elementdatafile", "")
    file = path
    if name.upper() != "LOCAL":
        file, offset = _detached(path, name), 0
    order = fields.get("elementbyteordermsb", fields.get("binarydatabyteordermsb", "false"))
    packed = fields.get("compresseddata", "false").lower() == "true"
    return VoxelPlace(
        file=file,
        offset=skip if skip == -1 else offset + skip,
        packing="zlib" if packed else "raw",
        byte_order=">" if order.lower() == "true" else "<",
        spacing_stated="elementspacing" in fields or "elementsize" in fields,
        millimetres=millimetres_per(fields.get("distanceunits", "")) or 1.0,
    )


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
    if name.upper().startswith("LIST") or "%" in name:
        raise UserError(f"{header} spreads its voxels over several files: save it as one file")
    if not name or not file.is_file():
        raise UserError(
            f'{header} names "{name}" as the file of its voxels, which is not there: '
            "put it beside the header"
        )
    return file
