"""NIfTI-1 and NIfTI-2, in one file or as .hdr and .img: mapped in place, or unpacked once.

Headers that break the standard are read as nibabel and ITK read them where these agree.

`nifti_slices` reads some slices in one pass, without unpacking to disk.
"""

from __future__ import annotations

import logging
import math
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from data.volumes.cache import (
    cached_file,
    file_key,
    files_key,
    gzip_blocks,
    map_unpacked,
    write_blocks,
)
from data.volumes.checks import check_affine, check_all_finite, check_voxel_type, volume_shape
from data.volumes.geometry import corners, millimetres_per
from data.volumes.mapping import map_file
from data.volumes.names import IMAGE_ENDINGS, PAIR_ENDINGS
from data.volumes.volume import Volume
from util.errors import UserError, reason_of, some_of

HEADER_BYTES = 544  # the longer header (NIfTI-2, 540 bytes) and its extension flag
GZIP_MAGIC = b"\x1f\x8b"
PAIR_MAGIC = (b"ni1", b"n+1", b"ni2", b"n+2")  # bytes 344 of NIfTI-1, 4 of NIfTI-2
NEVER = 100  # level of nibabel's reports above all that there are
FORMS_APART = 0.1  # of the smallest voxel edge: more than float32 and a quaternion lose
_QUIET = logging.getLogger("sr_cyclegan.nifti")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False
_SAID: set[str] = set()  # files that a line was said of


@dataclass(frozen=True)
class NiftiLayout:
    """What a NIfTI header says; attributes as in `data.volumes.volume.Volume`."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    affine: np.ndarray
    slope: float
    intercept: float
    spacing_known: bool = True

    @property
    def file_bytes(self) -> int:
        """Length of the unpacked file up to its last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_nifti(path: Path, cache_dir: Path) -> Volume:
    """Read .nii in place, .nii.gz through the cache; see `data.formats.readers.read_volume`."""
    source = str(path)
    unpacked = path
    packed = path.name.lower().endswith(".gz")
    if packed:
        unpacked = cached_file(
            cache_dir, f"{file_key(path)}.nii", lambda target: _unpack(path, target)
        )
    with unpacked.open("rb") as stream:
        layout = parse_header(stream.read(HEADER_BYTES), source)
    if packed:
        array = map_unpacked(unpacked, layout.dtype, layout.shape, layout.offset)
    else:
        array = map_file(path, layout.dtype, layout.shape, layout.offset, source)
        check_all_finite(array, source)
    return _volume(array, layout, source)


def read_nifti_pair(path: Path, cache_dir: Path) -> Volume:
    """Read a header (.hdr) and its voxels (.img), either packed or not, by the name of either."""
    header, image = pair_of(path)
    source = str(path)
    with header.open("rb") as stream:
        packed = header.name.lower().endswith(".gz")
        block = next(gzip_blocks(stream, source), b"") if packed else stream.read(HEADER_BYTES)
    layout = parse_header(block, source, in_pair=True)
    if not image.name.lower().endswith(".gz"):
        array = map_file(image, layout.dtype, layout.shape, layout.offset, str(image))
        check_all_finite(array, source)
        return _volume(array, layout, source)

    def unpack(target: Path) -> None:
        with image.open("rb") as stream:
            blocks = gzip_blocks(stream, str(image))
            write_blocks(target, blocks, layout.file_bytes, str(image))
        check_all_finite(
            map_file(target, layout.dtype, layout.shape, layout.offset, source), source
        )

    unpacked = cached_file(cache_dir, f"{files_key([header, image])}.raw", unpack)
    return _volume(
        map_unpacked(unpacked, layout.dtype, layout.shape, layout.offset), layout, source
    )


def pair_of(path: Path) -> tuple[Path, Path]:
    """The header and the image file that belong together, by the name of either.

    Raises:
        UserError: the other one is not there, or there are two.
    """
    lower = path.name.lower()
    ending = max((end for end in (*PAIR_ENDINGS, *IMAGE_ENDINGS) if lower.endswith(end)), key=len)
    stem = path.name[: -len(ending)]
    header, image = (
        path if ending.startswith(kind) else _other_of_pair(path, stem, kind)
        for kind in (".hdr", ".img")
    )
    return header, image


def _other_of_pair(path: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}{kind}", f"{stem}{kind}.gz"]
    there = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not there:  # in other letters, where they leave no doubt
        folded = [name.lower() for name in names]
        there = [other for other in path.parent.iterdir() if other.name.lower() in folded]
    if len(there) != 1:
        found = (
            "is not beside it" if not there else f"is there as {some_of([o.name for o in there])}"
        )
        raise UserError(f"{path} is one of two files, and {stem}{kind} {found}: keep one of each")
    return there[0]


def is_pair_header(path: Path) -> bool:
    """Whether a .hdr file is of NIfTI; other formats, and pictures of disks, share the ending."""
    with path.open("rb") as stream:
        block = stream.read(HEADER_BYTES)
    if block[:2] == GZIP_MAGIC:
        with path.open("rb") as stream, suppress(UserError):
            block = next(gzip_blocks(stream, str(path)), b"")
    return block[344:347] in PAIR_MAGIC or block[4:7] in PAIR_MAGIC


def _volume(array: np.ndarray, layout: NiftiLayout, source: str) -> Volume:
    return Volume(
        array, layout.affine, source, layout.slope, layout.intercept, layout.spacing_known
    )


def parse_header(block: bytes, source: str, in_pair: bool = False) -> NiftiLayout:
    """Read a NIfTI header of either version and byte order.

    Slope 0 or NaN means no scaling. Affines in metres or micrometres become millimetres. Where
    sform and qform put the volume into two places, a line says so, and the sform is taken.

    Args:
        block: at least the first 544 bytes of the file, if it has as many.
        source: the file as the user knows it.
        in_pair: whether the voxels lie in a file of their own.

    Raises:
        UserError: not NIfTI, or a volume that `data.volumes.checks` refuses.
    """
    if block[:2] == GZIP_MAGIC:
        raise UserError(f"{source} is packed with gzip: rename it so that it ends in .nii.gz")
    header = _header_of(block, source, in_pair)
    spacing_known = bool((header["pixdim"][1:4] != 0).all() or header["sform_code"] > 0)
    begins = float(header["vox_offset"])
    if not in_pair and 0 < begins < header.single_vox_offset:
        raise UserError(
            f"{source} states that voxels begin at byte {begins:g}, inside the header: convert it "
            "again from the original"
        )
    # As nibabel's own reader: a negative or missing voxel size and qfac become what they must be.
    header.check_fix(logger=_QUIET, error_level=NEVER)
    try:
        dtype = header.get_data_dtype()
        sizes = [int(size) for size in header.get_data_shape()]
        sizes[3:] = [max(size, 1) for size in sizes[3:]]  # some write 0 where nothing follows
        affine = header.get_best_affine()
        offset = int(header["vox_offset"])
    except (HeaderDataError, KeyError, ValueError, OverflowError) as error:
        raise UserError(
            f"{source} has a broken NIfTI header ({reason_of(error)}): convert it again from the "
            "original"
        ) from error
    shape = volume_shape(sizes, source)
    check_voxel_type(dtype, source)
    _say_where_forms_differ(header, shape[::-1], source)
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= _millimetres(header)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 or not math.isfinite(slope):
        slope, intercept = 1.0, 0.0
    if not math.isfinite(intercept):
        raise UserError(f"{source} states scl_inter {intercept}: set it to 0 or the true offset")
    first_voxel = max(offset, 0 if in_pair else header.single_vox_offset)
    affine = check_affine(affine, shape[0], source)
    return NiftiLayout(shape, dtype, first_voxel, affine, slope, intercept, spacing_known)


def _millimetres(header: nib.Nifti1Header) -> float:
    """Length of the header's unit; 1 where it states none, or a number that stands for none."""
    try:
        unit, _ = header.get_xyzt_units()
    except KeyError:
        return 1.0
    return millimetres_per(unit) or 1.0


def _header_of(block: bytes, source: str, in_pair: bool) -> nib.Nifti1Header:
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        length = kind.template_dtype.itemsize
        if len(block) >= length and kind.may_contain_header(block):
            header = kind(block[:length], check=False)
            if bytes(header["magic"]).startswith((b"n+", b"ni")):
                return header
    if in_pair:
        raise UserError(
            f"{source} is no NIfTI header (ANALYZE states neither sides nor place, and other "
            "formats share the ending): convert it to .nii from the original"
        )
    raise UserError(f"{source} is not a NIfTI file: give a whole .nii or .nii.gz file")


def _say_where_forms_differ(
    header: nib.Nifti1Header, size: tuple[int, int, int], source: str
) -> None:
    """Tell, once a file, where other programs may see it elsewhere: those that take the qform, as
    ITK-SNAP may, and all where neither form is stated."""
    codes = (header["sform_code"], header["qform_code"])
    if source in _SAID or (min(codes) < 1 and any(codes)):
        return
    if not any(codes):
        _SAID.add(source)
        print(
            f"warning: {source} states neither sform nor qform: its place and sides are taken as "
            "nibabel takes them, other programs may take others",
            file=sys.stderr,
        )
        return
    try:
        sform, qform = header.get_sform(), header.get_qform()
    except (HeaderDataError, ValueError):
        return  # a qform that is none; the sform is taken
    apart = np.abs(corners(sform, size) - corners(qform, size)).max()
    smallest = np.linalg.norm(sform[:3, :3], axis=0).min()
    if apart > FORMS_APART * smallest:
        _SAID.add(source)
        print(
            f"warning: sform and qform of {source} put it up to {apart:.3g} mm apart: the sform is "
            "taken, other programs may take the qform",
            file=sys.stderr,
        )


def _unpack(path: Path, target: Path) -> None:
    """Unpack a .nii.gz, refusing it before the first voxel is written where that is possible."""
    source = str(path)
    with path.open("rb") as stream:
        blocks = gzip_blocks(stream, source)
        first = next(blocks, b"")
        layout = parse_header(first, source)
        write_blocks(target, chain([first], blocks), layout.file_bytes, source)
    check_all_finite(map_file(target, layout.dtype, layout.shape, layout.offset, source), source)


def read_layout(path: Path) -> NiftiLayout:
    """The header of a .nii or .nii.gz file.

    Raises:
        UserError: missing, broken or no NIfTI file.
    """
    source = str(path)
    try:
        with path.open("rb") as stream:
            if path.name.lower().endswith(".gz"):
                return parse_header(next(gzip_blocks(stream, source), b""), source)
            return parse_header(stream.read(HEADER_BYTES), source)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
