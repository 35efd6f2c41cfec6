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
SAME_SIZE = 1e-3
STEP = ("reconstruction", "section to section step")  # of slices that were written


def logged_spacing(folder: Path) -> Spacing | None:
    """Voxel size (x, y, z) in mm by the logs of a folder; None without one that states it.

    Raises:
        UserError: logs of one kind that state two sizes.
    """
    logs = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".log")
    sections = {path: found for path in logs if (found := _sections_of(path))}
    for place in PIXEL_SIZES:
        stated = {path: size for path, log in sections.items() if (size := _number(log, *place))}
        if not stated:
            continue
        (one, size), *others = stated.items()
        for other, another in others:
            if not math.isclose(size, another, rel_tol=SAME_SIZE):
                raise UserError(
                    f"{one} and {other.name} state two voxel sizes, {size:g} and {another:g} um: "
                    "leave the log of these slices there, or give the size"
                )
        step = _number(sections[one], *STEP) or 1.0
        return size * MICROMETRE, size * MICROMETRE, size * step * MICROMETRE
    return None


def _sections_of(path: Path) -> dict[str, configparser.SectionProxy]:
    log = configparser.ConfigParser(
        strict=False, interpolation=None, delimiters=("=",), allow_no_value=True
    )
    try:
        log.read_string(path.read_text(encoding="latin-1"))
    except (configparser.Error, AttributeError, OSError):  # no log of this kind
        return {}
    return {name.strip().lower(): log[name] for name in log.sections()}


def _number(sections: dict[str, configparser.SectionProxy], section: str, key: str) -> float | None:
    try:
        number = float((sections[section].get(key) or "").replace(",", "."))
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
