"""Which file is the lung mask of a CT: by the names in use, in every format that is read."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from data.volumes.names import (
    MASK_WORDS,
    PICTURE_ENDINGS,
    TIFF_ENDINGS,
    case_name,
    holds_dicom,
    is_dicom_name,
    is_mask_name,
    is_volume_name,
    mask_cases,
    split_mask_name,
)
from data.volumes.volume import Volume
from util.errors import UserError, some_of

COMPUTED = "computed"
LIKELY = re.compile(r"mask|seg|label|lungs?(?![a-z])", re.IGNORECASE)
NAMELESS = [("", f"{lung}mask{s}") for lung in ("", "lung", "lungs") for s in ("", "s")]


def find_mask(volume: Volume, mask_folder: Path | None) -> Path | None:
    """The file that holds the lung mask of a CT; None where there is none and one is computed.

    For a CT called CASE: `CASE_mask.nii.gz` and its like (`split_mask_name`), in any case of the
    letters and any format. In `mask_folder` also files that are named as the CT, without nnU-Net's
    `_0000`. Without a folder, beside the CT, or in the folder that holds its slices; there
    `mask.nii.gz` will do, if no other volume lies beside it, and DICOM segmentations, which are
    not read, are left out.

    Raises:
        UserError: the folder does not exist or holds no mask of this CT; or several masks are
            there and none comes first.
    """
    case = volume.name.lower()
    if mask_folder is None:
        for place in dict.fromkeys((_place_by_name(volume), _real(Path(volume.source)))):
            near = [place.parent, place] if place.is_dir() else [place.parent]
            masks = [one for folder in near for one in _masks_near(folder, case, place)]
            if (found := _best(masks, volume)) is not None:
                return found
        return None
    if not (mask_folder.is_dir() and os.access(mask_folder, os.R_OK)):
        what = "cannot be read" if mask_folder.is_dir() else "does not exist"
        raise UserError(
            f"mask folder {mask_folder} {'is a file' if mask_folder.is_file() else what}: give the "
            "folder that holds the NAME_mask.nii.gz files"
        )
    found = _best(_masks_of(mask_folder, case, _real(Path(volume.source))), volume)
    if found is None:
        volumes = [one.name for one in _entries(mask_folder) if _is_mask(one) or _is_volume(one)]
        raise UserError(
            f"--maskdatafolder {mask_folder} holds no mask of {volume.name}: expected "
            f"{volume.name}_mask.nii.gz or {volume.name}.nii.gz, got "
            f"{some_of(volumes) or 'no volume'}"
        )
    return found


def likely_masks(volume: Volume) -> list[str]:
    """Files near a CT that are named nearly as its mask: `mask_CASE`, `CASE_lungs`, `CASE_mask_v2`,
    a segmentation among its DICOM slices. They are not taken, and a line should say so."""
    place = _place_by_name(volume)
    found = []
    for folder in [place.parent, place] if place.is_dir() else [place.parent]:
        for entry in _entries(folder):
            name = case_name(entry)
            is_own = folder == place or volume.name.lower() in name.lower()
            is_likely = is_own and name != volume.name and LIKELY.search(name)
            is_slice = is_likely and folder == place and _is_slice(entry)
            if is_likely and not is_slice and (is_dicom_name(entry) or _is_volume(entry)):
                found.append(entry.name)
    return found


def mask_in_words(volume: Volume, mask_folder: Path | None) -> str:
    """The file of a CT's lung mask, or that it is computed."""
    return str(find_mask(volume, mask_folder) or COMPUTED)


def _place_by_name(volume: Volume) -> Path:
    """Where a CT lies by its name: links to it are not followed, and "." has a name."""
    return Path(os.path.abspath(volume.source))  # noqa: PTH100 - Path.resolve follows them


def _real(path: Path) -> Path:
    """A path without links; of a link that leads nowhere but to itself the link."""
    return Path(os.path.realpath(path))  # Path.resolve raises an error for such links


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, but for hidden files; nothing where it cannot be listed."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return []


def _is_mask(entry: Path) -> bool:
    """Whether an entry is named as a mask in a format that is read, or is a folder so named."""
    is_format = is_volume_name(entry) or is_dicom_name(entry)
    return is_mask_name(entry) and (is_format or entry.is_dir())


def _slices_in(path: Path) -> int | None:
    """Slices of a DICOM file, none of a segmentation; None for one that cannot be read."""
    from data.formats.dicom.slice_files import headers_of_file  # it loads pydicom

    with suppress(UserError, OSError):
        return len(headers_of_file(path))
    return None


def _is_dicom_object(path: Path) -> bool:
    """Whether a file that is named as DICOM is no mask that is read: a segmentation, or a slice."""
    return is_dicom_name(path) and path.is_file() and _slices_in(path) in (0, 1)


def _is_slice(path: Path) -> bool:
    """Whether a file in the folder of a CT's slices is one of them."""
    if is_dicom_name(path):
        return bool(_slices_in(path))
    return path.name.lower().endswith(TIFF_ENDINGS) and not is_mask_name(path)


def _names_of(case: str) -> tuple[str, str]:
    return case, case.removesuffix("_0000")


def _masks_in(entries: list[Path], case: str) -> list[Path]:
    names = _names_of(case)
    found = [path for path in entries if set(mask_cases(path)) & set(names) and _is_mask(path)]
    # That of the CT with the longer name is its own.
    there = {case_name(path).lower() for path in entries if not is_mask_name(path)}
    return [path for path in found if not (set(mask_cases(path)[1:]) - set(names)) & there]


def _masks_of(folder: Path, case: str, place: Path) -> list[Path]:
    """Masks of a case in a folder of masks, which may be called as the case; no mask is the CT
    itself, which lies at `place`."""
    entries, names = _entries(folder), _names_of(case)
    named_alike = [path for path in entries if case_name(path).lower() in names]
    alike = [path for path in named_alike if _real(path) != place and _is_volume(path)]
    return [*_masks_in(entries, case), *alike]


def _masks_near(folder: Path, case: str, place: Path) -> list[Path]:
    """Masks of a case, or else one without a case's name where it can be of no other.

    Args:
        folder: that is searched.
        case: of the CT.
        place: of the CT, a file or a folder.
    """
    entries = _entries(folder)
    if named := [path for path in _masks_in(entries, case) if not _is_dicom_object(path)]:
        return named
    nameless = [path for path in entries if split_mask_name(path) in NAMELESS and _is_mask(path)]
    nameless = [path for path in nameless if not _is_dicom_object(path)]
    for path in [path for path in nameless if path.is_dir() and not _is_volume(path)]:
        nameless.remove(path)  # a folder of masks beside the CT
        if found := _masks_of(path, case, place):
            return found
    # Folders are opened here, those of a whole cohort: not before there is something to decide.
    if not nameless or folder == place:
        return nameless
    others = (path for path in entries if _real(path) != place and not is_mask_name(path))
    return [] if any(map(_is_volume, others)) else nameless


def _is_volume(entry: Path) -> bool:
    """Whether an entry of a folder is a volume by its name, or by the slices that it holds; one
    that cannot be looked at is none."""
    slices = (*TIFF_ENDINGS, *PICTURE_ENDINGS)
    with suppress(OSError):
        return is_volume_name(entry) or (
            entry.is_dir()
            and (
                holds_dicom(entry)
                or any(one.name.lower().endswith(slices) for one in entry.iterdir())
            )
        )
    return False


def _best(paths: list[Path], volume: Volume) -> Path | None:
    """The one whose words come first among `MASK_WORDS`, a file before a folder of slices (which
    may hold previews).

    Raises:
        UserError: several have the same ones.
    """
    if not paths:
        return None

    def rank(path: Path) -> tuple[int, bool]:
        word = split_mask_name(path)[1]
        known = MASK_WORDS.index(word) if word in MASK_WORDS else len(MASK_WORDS)
        return known, path.is_dir() and not is_volume_name(path)

    first, *others = sorted(paths, key=rank)
    if others and rank(others[0]) == rank(first):
        raise UserError(
            f"{volume.name} has several lung masks, {first} and {others[0].name}: leave one of "
            "them there"
        )
    return first
