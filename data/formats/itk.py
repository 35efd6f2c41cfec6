"""NRRD and MetaImage: geometry through ITK, voxels mapped in place or unpacked once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from data.formats.itk_headers import VoxelPlace, meta_place, nrrd_place
from data.volumes.cache import cached_file, files_key
from data.volumes.checks import check_affine, check_all_finite, check_voxel_type, volume_shape
from data.volumes.mapping import map_file
from data.volumes.unpack import gzip_blocks, write_blocks, zlib_blocks
from data.volumes.volume import Volume
from util.errors import UserError

# ITK's warnings would land in the middle of a progress bar; what matters is raised as UserError.
sitk.ProcessObject.SetGlobalWarningDisplay(False)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

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
        check_all_finite(array, source)
        return array

    def unpack(target: Path) -> None:
        read_blocks = gzip_blocks if place.packing == "gzip" else zlib_blocks
        with place.file.open("rb") as stream:
            stream.seek(place.offset)
            write_blocks(target, read_blocks(stream, source), voxel_bytes, source)
        check_all_finite(map_file(target, dtype, shape, 0, source), source)

    files = [path] if place.file == path else [path, place.file]
    unpacked = cached_file(cache_dir, f"{files_key(files)}.raw", unpack)
    return map_file(unpacked, dtype, shape, 0, source)
