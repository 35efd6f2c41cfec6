"""Names of the volume formats: which endings are known, and the case name without them; what is
DICOM, which needs no ending."""

from __future__ import annotations

import re
from pathlib import Path

NIFTI_ENDINGS = (".nii", ".nii.gz")
PAIR_ENDINGS = (".hdr", ".hdr.gz")  # NIfTI in two files is called by its header
IMAGE_ENDINGS = (".img", ".img.gz")  # the other of the two; DICOM slices may be called so, too
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
TIFF_ENDINGS = (".tif", ".tiff", ".ome.tif", ".ome.tiff")
ZARR_ENDINGS = (".zarr", ".ome.zarr")
PREVIEWS = ("_spr", "_preview", "_thumb")  # SkyScan's projection, and others' small pictures
PICTURE_ENDINGS = (".bmp", ".png", ".jpg", ".jpeg", ".jp2", ".j2k")  # of slices in a folder
ENDINGS = NIFTI_ENDINGS + PAIR_ENDINGS + ITK_ENDINGS + TIFF_ENDINGS
"""Known file endings, in the order of preference when one case lies there in several formats."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
KNOWN_ENDINGS = ENDINGS + IMAGE_ENDINGS + ZARR_ENDINGS + DICOM_SUFFIXES
START_BYTES = 1024
# First element (little endian, with a type or without) of files that lack the 128-byte preamble: a
# length, behind which its group goes on, or the first texts of group 8. Its tag alone would be
# found at the start of raw voxels, too.
BARE_START = re.compile(
    rb"(\x02\0|\x08\0)[\0\x01]\0(UL\x04\0|\x04\0\0\0)....\1"
    rb"|\x08\0[\x05\x08\x16]\0(CS|UI|\0\0\0\0\x08\0|.[\0-\x03]\0\0[ -~])",
    re.DOTALL,
)

# What ends the name of a mask, without what stands between the words; those that are more surely
# the lung come first.
MASK_WORDS = (
    *(
        f"{lung}{mask}"
        for mask in ("mask", "masks", "segmentation", "seg")
        for lung in ("lung", "lungs")
    ),
    *("mask", "masks", "segmentation", "seg", "label", "labels", "labelmap"),
)
MASK_NAME = re.compile(
    r"(?:(?P<case>.+?)[ ._-])??"
    r"(?P<words>(?:lungs?[ ._-]?)?(?:masks?|seg|segmentation)|labels?|label[ ._-]?map)",
    re.DOTALL,
)

KNOWN_FORMATS = "NIfTI, NRRD, MetaImage, TIFF, Zarr, or a folder of DICOM, TIFF or picture slices"


def ending_of(path: str | Path) -> str:
    """Longest known ending of a file name, in lower case, or "" for an unknown format."""
    name = Path(path).name.lower()
    return max((ending for ending in ENDINGS if name.endswith(ending)), key=len, default="")


def case_name(path: str | Path) -> str:
    """File or folder name without its format's ending: `scans/lung 7.nii.gz` -> `lung 7`. A folder
    has none of DICOM: its files are, and a folder `P1` may lie beside a folder `P1.dcm`."""
    name = Path(path).name or Path(path).resolve().name
    ending = max(
        (end for end in KNOWN_ENDINGS if name.lower().endswith(end)),
        key=len,
        default="",
    )
    if ending in DICOM_SUFFIXES and Path(path).is_dir():
        return name
    return name[: -len(ending)] if ending and len(name) > len(ending) else name


def split_mask_name(path: str | Path) -> tuple[str, str]:
    """(case, words that name a mask) of a file's name in lower case: `CT 7_Lung-Mask.nrrd` -> ("ct
    7", "lungmask"); the words are "" for a name without any."""
    match = MASK_NAME.fullmatch(case_name(path).lower())
    if match is None:
        return case_name(path).lower(), ""
    return match["case"] or "", re.sub(r"[ ._-]", "", match["words"])


def mask_cases(path: str | Path) -> list[str]:
    """Names in lower case of the CTs that a mask may be of: `ct_lung_mask` is the lung mask of `ct`
    or the mask of `ct_lung`; none for a name of no mask."""
    case, words = split_mask_name(path)
    named = re.fullmatch(
        r"(.*lungs?)[ ._-](?:masks?|seg|segmentation)", case_name(path).lower(), re.S
    )
    return [case, *([named[1]] if named else [])] if words else []


def is_mask_name(path: str | Path) -> bool:
    """Whether a file is a mask by its name, such as `<case>_mask.*`, and so not a volume."""
    return split_mask_name(path)[1] != ""


def is_volume_name(path: str | Path) -> bool:
    """Whether a file, or a Zarr store, is named as one that could be read."""
    name = Path(path).name.lower()
    return not name.startswith(".") and name.endswith((*ENDINGS, *ZARR_ENDINGS))


def natural_key(path: str | Path) -> list[tuple[int, int, str]]:
    """Sort key that puts `slice10` behind `slice9`: runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", str(path).lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def is_dicom_name(path: Path) -> bool:
    """Whether a file is DICOM by its ending."""
    return path.suffix.lower() in DICOM_SUFFIXES


def looks_like_dicom(path: Path) -> bool:
    """Whether a file is a DICOM slice by its ending or first bytes; a DICOMDIR is not."""
    if path.name.upper() == "DICOMDIR" or path.name.startswith("."):
        return False
    if is_dicom_name(path):
        return True
    start = file_start(path)
    return start[128:132] == b"DICM" or BARE_START.match(start) is not None


def holds_dicom(folder: Path) -> bool:
    """Whether a folder holds DICOM slices; files of other formats by their names are not opened."""
    other = (*ENDINGS, *PICTURE_ENDINGS, ".log", ".txt", ".json", ".csv")
    return any(
        looks_like_dicom(path)
        for path in folder.iterdir()
        if not path.name.lower().endswith(other) and path.is_file()
    )


def is_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder with one."""
    return holds_dicom(path) if path.is_dir() else path.is_file() and looks_like_dicom(path)


def file_start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(START_BYTES)
