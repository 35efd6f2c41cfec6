"""From the words on a command line (files, folders, patterns) to a list of volumes."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from data.formats.label_maps import is_label_map
from data.formats.nifti import is_pair_header
from data.formats.picture_stack import FEWEST, is_grey_stack, picture_files
from data.formats.tiff.reader import count_slices, files_of_volume, tiff_files
from data.formats.zarr_store import is_zarr
from data.formats.zarr_voxels import is_address
from data.volumes.names import (
    ENDINGS,
    IMAGE_ENDINGS,
    KNOWN_FORMATS,
    PAIR_ENDINGS,
    TIFF_ENDINGS,
    case_name,
    ending_of,
    holds_dicom,
    is_mask_name,
    looks_like_dicom,
    natural_key,
)
from util.disk.cache_folder import MARK
from util.errors import UserError, some_of


def find_volumes(words: Sequence[str], cache_dir: Path | None = None) -> list[Path]:
    """Find the volumes that a list of files, folders and glob patterns stands for.

    A folder of DICOM slices and a folder of single-page TIFF slices are one volume each; any
    other folder stands for the volume files in it and for what its sub-folders hold, each of them
    once, whatever links lead there. Masks by their names, label maps (said by name), hidden files
    and other files are left out; a label map that is named alone is taken. A case is listed
    once, also where it was named twice or lies beside itself in another format; NIfTI is then
    preferred.

    Args:
        words: paths, "~" allowed, or patterns with *, ?, [] and ** in them.
        cache_dir: folder for volumes that are unpacked to be looked at; None takes the user's.

    Returns:
        Paths for `data.formats.readers.read_volume`, in the order of the words, then of the names
        (`case9` before `case10`).

    Raises:
        UserError: a word that stands for no volume.
    """
    if not words:
        raise UserError(f"no volume was named: give files or folders, {KNOWN_FORMATS}")
    found: list[Path] = []
    for word in words:
        matches = _volumes_of(str(word))
        named = Path(word).expanduser()
        # Alone it is no mask that a shell's * added.
        if len(words) == 1 and not matches and named.is_dir() and holds_dicom(named):
            matches = [named] if is_mask_name(named) and _holds_scan(named) else []
        if not matches and not is_mask_name(word):
            raise _nothing_in(word)
        found += matches
    # A list of files may be a shell's answer to a pattern: one file alone is what was wanted.
    if found != [Path(words[0]).expanduser()]:
        found = _without_labels(found, cache_dir)
    if not found:
        raise _nothing_in(some_of([str(word) for word in words]))
    return _once_each(found)


def _without_labels(paths: list[Path], cache_dir: Path | None) -> list[Path]:
    """Volumes without label maps, which a line names."""
    labels = {path: is_label_map(path, cache_dir) for path in dict.fromkeys(paths)}
    if any(labels.values()):
        shown = some_of([str(path) for path, is_label in labels.items() if is_label])
        print(f"left out, label maps and no images: {shown}")
    return [path for path in paths if not labels[path]]


def _nothing_in(words: str) -> UserError:
    return UserError(
        f"no volume in {words} (masks and label maps are left out): give {KNOWN_FORMATS}"
    )


def _volumes_of(word: str) -> list[Path]:
    if not word.strip():
        raise UserError('a volume was named "", as by a variable that is not set: give its path')
    path = Path(word).expanduser()
    if is_address(word):
        return [path]
    try:
        if path.is_dir():
            # Pictures that are no grey stack: the reader says why.
            return _volumes_in(path, set()) or ([path] if picture_files(path) else [])
        if path.exists():
            return _named_file(path)
        matches = sorted(_expand(str(path)), key=natural_key)
        if not matches and not glob.has_magic(word):
            raise UserError(f"{word} does not exist: check the path")
        found: list[Path] = []
        for match in map(Path, matches):
            if any(is_zarr(parent) for parent in match.parents):
                continue  # ** also reaches the arrays inside a store
            if match.is_dir():
                found += _volumes_in(match, set())
            elif _is_volume_file(match):
                found.append(match)
        return found
    except OSError as error:
        raise UserError(
            f"{word} cannot be searched ({error.strerror or error}): check its permissions"
        ) from error


def _expand(pattern: str) -> list[str]:
    """What a pattern matches; ** stands for a folder and all below it, each of them once."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return glob.glob(pattern)  # noqa: PTH207 - Path.glob refuses absolute patterns
    place = parts.index("**")
    top, rest = Path(*parts[:place]), parts[place + 1 :]
    tops = glob.glob(str(top)) if place else [""]  # noqa: PTH207
    seen: set[Path] = set()
    folders = [folder for found in tops for folder in _folders_below(Path(found), seen)]
    if not rest:
        return [str(folder) for folder in folders]
    return [match for folder in folders for match in _expand(str(Path(folder, *rest)))]


def _folders_below(folder: Path, seen: set[Path]) -> list[Path]:
    """A folder and those below it, but for hidden ones and those that were seen."""
    whole = _real(folder)
    if whole in seen or not whole.is_dir() or (folder / MARK).exists():
        return []
    seen.add(whole)
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [folder, *(found for entry in entries for found in _folders_below(entry, seen))]


def _named_file(path: Path) -> list[Path]:
    """A file named outright: it must be a volume, or a mask, which a shell's * may have added."""
    if is_mask_name(path):
        return []
    if not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder: give {KNOWN_FORMATS}")
    if ending_of(path):
        return [path]
    if path.name.lower().endswith(IMAGE_ENDINGS) and not looks_like_dicom(path):
        return [path]
    if path.is_file() and looks_like_dicom(path):
        from data.formats.dicom.slice_files import frames_of  # it loads pydicom

        return [path] if frames_of(path) else []
    raise UserError(f"{path} has an unknown format: give {KNOWN_FORMATS}")


def _volumes_in(folder: Path, seen: set[Path]) -> list[Path]:
    """The folder itself if it is one volume, its volume files, and what its sub-folders hold.

    Args:
        folder: of the disk.
        seen: folders that were looked at, links resolved: a link may lead back up.
    """
    if _real(folder) in seen or (folder / MARK).exists():
        return []  # the cache of unpacked volumes
    seen.add(_real(folder))
    if is_zarr(folder):
        return [] if is_mask_name(folder) else [folder]
    entries = sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")),
        key=lambda entry: natural_key(entry.name),
    )
    files = [entry for entry in entries if entry.is_file()]
    slices = tiff_files(folder)
    single = dict.fromkeys(_single_pages(slices))
    others = any(ending_of(file) not in ("", *TIFF_ENDINGS) for file in files)
    others = others or len(single) < len(slices)
    is_stack = bool(single) and (not others or len(single) >= FEWEST)
    if single and not is_stack:
        shown = some_of([str(path) for path in single])
        print(f"left out, single pictures beside volumes: {shown}")
    found = []
    if not any(map(ending_of, files)):
        is_stack = is_stack or is_grey_stack(picture_files(folder))
    is_series = holds_dicom(folder) and _holds_scan(folder)
    if (is_stack or is_series) and not is_mask_name(folder):
        found.append(folder)
    for file in files:
        if _is_volume_file(file) and file not in single:
            found.append(file)
    for entry in entries:
        if entry.is_dir():
            found += _volumes_in(entry, seen)
    return found


def _single_pages(files: Sequence[Path]) -> list[Path]:
    """Those of a folder's TIFF files that hold one page, and no part of a volume of several files.
    One that cannot be read counts as the others do: the reader says what is wrong."""
    single: list[Path] = []
    damaged: list[Path] = []
    whole: set[Path] = set()
    for path in files:
        if _real(path) in whole:  # each of them lists all others
            continue
        try:
            if count_slices(path) == 1:
                single.append(path)
            else:
                whole.update(map(_real, files_of_volume(path)))
        except UserError:
            damaged.append(path)
    single = [path for path in single if _real(path) not in whole]
    return single + damaged if single and not whole else single


def _holds_scan(folder: Path) -> bool:
    """Whether a folder of DICOM files holds slices, and not reports or contours alone."""
    from data.formats.dicom.slice_files import holds_slices  # it loads pydicom

    return holds_slices(folder)


def _is_volume_file(path: Path) -> bool:
    """Whether a file that nobody named is a volume, by its name and, of .hdr, by what it holds."""
    if not ending_of(path) or is_mask_name(path):
        return False
    return ending_of(path) not in PAIR_ENDINGS or is_pair_header(path)


def _once_each(paths: Sequence[Path]) -> list[Path]:
    """Drop repetitions of a case: the same folder and case name, the preferred format kept."""
    kept: dict[tuple[Path, str], Path] = {}
    for path in paths:
        case = _case(path)
        if case not in kept or _preference(path) < _preference(kept[case]):
            kept[case] = path
    chosen = set(map(_real, kept.values()))
    dropped = [
        str(path)
        for path in paths
        if _real(path) not in chosen and not path.name.lower().endswith(IMAGE_ENDINGS)
    ]
    if dropped:
        print(f"left out, the same case is there in another format: {some_of(dropped)}")
    return _whole_volumes(list(kept.values()))


def _case(path: Path) -> tuple[Path, str]:
    whole = _real(path)
    return whole.parent, case_name(whole)


def _real(path: Path) -> Path:
    """A path without links; of a link that leads nowhere but to itself the link."""
    return Path(os.path.realpath(path))  # Path.resolve raises an error for such links


def _whole_volumes(paths: list[Path]) -> list[Path]:
    """Each volume of several files (OME-TIFF) by its first one alone."""
    tiffs = [path for path in paths if ending_of(path) in TIFF_ENDINGS and path.is_file()]
    further: set[Path] = set()
    for path in tiffs if len(tiffs) > 1 else []:
        if _real(path) not in further:
            further.update(_real(one) for one in files_of_volume(path)[1:])
    return [path for path in paths if _real(path) not in further]


def _preference(path: Path) -> int:
    ending = ending_of(path)
    return ENDINGS.index(ending) if ending and not path.is_dir() else len(ENDINGS)
