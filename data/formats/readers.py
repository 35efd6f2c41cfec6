"""One entrance for all volume formats.

Those of SimpleITK (DICOM, NRRD, MetaImage) are imported where a file needs them: loading it takes a
while, and most volumes do without it.
"""

from __future__ import annotations

from pathlib import Path

from data.formats.nifti import read_nifti, read_nifti_pair
from data.formats.picture_stack import (
    FEWEST,
    is_picture_stack,
    picture_files,
    read_picture_folder,
)
from data.formats.tiff.reader import check_tiff_spacing, read_tiff, read_tiff_folder, tiff_files
from data.formats.zarr_store import is_zarr, read_zarr
from data.volumes.names import (
    IMAGE_ENDINGS,
    ITK_ENDINGS,
    KNOWN_FORMATS,
    NIFTI_ENDINGS,
    PAIR_ENDINGS,
    TIFF_ENDINGS,
    ending_of,
    holds_dicom,
    looks_like_dicom,
)
from data.volumes.volume import Volume
from util.disk.cache_folder import default_cache_dir
from util.errors import UserError, some_of


def read_volume(
    path: str | Path,
    cache_dir: Path | None = None,
    tiff_spacing: tuple[float, float, float] | None = None,
) -> Volume:
    """Open a volume of any known format; its voxels stay on disk.

    Uncompressed files are memory-mapped where they lie. Packed ones, DICOM series and TIFF
    stacks are decoded once, slice by slice, to a cache file named by their content, and mapped
    from there. Floating-point voxels are checked for NaN, slice by slice. Zarr and OME-Zarr stay
    where they are, also at an address such as s3://bucket/lung.zarr, and are read by patches.

    Args:
        path: NIfTI (.nii, .hdr with .img), NRRD, MetaImage or TIFF file, a folder with one DICOM
            series or one stack of TIFF files or pictures, a Zarr store or its address.
        cache_dir: folder for decoded volumes; None: the default of `util.disk.cache_folder`.
        tiff_spacing: voxel size (x, y, z) in mm for TIFF, pictures and Zarr, in place of what they
            state.

    Raises:
        UserError: missing, unreadable, truncated, empty, of unknown format, in colour, with
            several time points, with NaN or infinite voxels, or an irregular series.
    """
    path = Path(path)
    cache = cache_dir if cache_dir is not None else default_cache_dir()
    spacing = None if tiff_spacing is None else check_tiff_spacing(tiff_spacing)
    try:
        if is_zarr(path):
            return read_zarr(path, spacing)
        if path.is_dir():
            return _read_folder(path, cache, spacing)
        if not path.exists():
            raise UserError(f"{path} does not exist: check the path")
        if not path.is_file():
            raise UserError(f"{path} is neither a file nor a folder: give {KNOWN_FORMATS}")
        ending = ending_of(path)
        if ending in NIFTI_ENDINGS:
            return read_nifti(path, cache)
        if ending in PAIR_ENDINGS or _is_image_of_pair(path):
            return read_nifti_pair(path, cache)
        if ending in ITK_ENDINGS:
            from data.formats.itk import read_itk

            return read_itk(path, cache)
        if ending in TIFF_ENDINGS:
            return read_tiff(path, cache, spacing)
        if looks_like_dicom(path):
            from data.formats.dicom.series import read_dicom

            return read_dicom(path, cache)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check the file and its permissions"
        ) from error
    raise UserError(f"{path} has an unknown format: give {KNOWN_FORMATS}")


def _is_image_of_pair(path: Path) -> bool:
    """Whether a file is the .img of NIfTI in two files, and no DICOM slice that is called so."""
    return path.name.lower().endswith(IMAGE_ENDINGS) and not looks_like_dicom(path)


def _read_folder(
    folder: Path, cache_dir: Path, spacing: tuple[float, float, float] | None
) -> Volume:
    slices = tiff_files(folder)
    dicom = holds_dicom(folder)
    if slices and dicom:
        raise UserError(
            f"folder {folder} holds both DICOM and TIFF slices: give them a folder each"
        )
    pictures = picture_files(folder)
    if slices and is_picture_stack(pictures):
        raise UserError(
            f"folder {folder} holds TIFF files and a stack of pictures ({slices[0].name}, "
            f"{pictures[0].name}): give them a folder each"
        )
    if slices:
        return read_tiff_folder(folder, cache_dir, spacing)
    volumes = sorted(path.name for path in folder.iterdir() if ending_of(path))
    if not dicom and is_picture_stack(pictures):
        return read_picture_folder(folder, cache_dir, spacing)
    if volumes and not dicom:
        raise UserError(
            f"folder {folder} holds {len(volumes)} volume files, not one series of slices: "
            f"give one of them, for example {volumes[0]}"
        )
    if pictures and not dicom:
        raise UserError(
            f"the pictures in {folder} are no stack ({some_of([one.name for one in pictures])}): "
            f"{FEWEST} slices are expected at least, of one format and named alike but for a number"
        )
    from data.formats.dicom.series import read_dicom

    return read_dicom(folder, cache_dir)
