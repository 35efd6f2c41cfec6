"""Voxel sizes from the log that SkyScan's reconstruction (NRecon) writes beside its slices."""

from __future__ import annotations

import configparser
import math
from pathlib import Path

from util.errors import UserError

Spacing = tuple[float, float, float]
MICROMETRE = 1e-3  # mm
# Where the size of a slice's pixels stands, the surest first; that of the acquisition is the
# detector's, which the reconstruction keeps unless its own section says otherwise.
PIXEL_SIZES = (
    ("reconstruction", "pixel size (um)"),
    ("acquisition", "scaled image pixel size (um)"),
    ("acquisition", "image pixel size (um)"),
)
STEP = ("reconstruction", "section to section step")  # of slices that were written


def logged_spacing(folder: Path) -> Spacing | None:
    """Voxel size (x, y, z) in mm by the logs of a folder; None without one that states it.

    Raises:
        UserError: two logs that state two sizes.
    """
    logs = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".log")
    stated = {path: size for path in logs if (size := _stated_by(path)) is not None}
    if len(set(stated.values())) > 1:
        one, other, *_ = stated
        raise UserError(
            f"{one} and {other.name} state two voxel sizes, {stated[one][0]:g} and "
            f"{stated[other][0]:g} mm: leave the log of these slices there, or give the size"
        )
    return next(iter(stated.values()), None)


def _stated_by(path: Path) -> Spacing | None:
    log = configparser.ConfigParser(
        strict=False, interpolation=None, delimiters=("=",), allow_no_value=True
    )
    try:
        log.read_string(path.read_text(encoding="latin-1"))
    except (configparser.Error, OSError):
        return None
    sections = {name.strip().lower(): log[name] for name in log.sections()}
    sizes = [_number(sections, *place) for place in PIXEL_SIZES]
    size = next((one for one in sizes if one is not None), None)
    if size is None:
        return None
    step = _number(sections, *STEP) or 1.0
    return size * MICROMETRE, size * MICROMETRE, size * step * MICROMETRE


def _number(sections: dict[str, configparser.SectionProxy], section: str, key: str) -> float | None:
    try:
        number = float((sections[section].get(key) or "").replace(",", "."))
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
