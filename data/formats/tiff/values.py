"""What a TIFF page's stored numbers mean: black or white at 0, palettes, ImageJ's calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from util.errors import UserError

WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE = 0, 1, 3
REFUSED = {
    2: "RGB colour",
    4: "a transparency mask",
    5: "printing colours",
    6: "YCbCr colour",
    8: "CIE Lab colour",
    9: "CIE Lab colour",
    32803: "a colour filter's raw image",
}
UPRIGHT = 1  # orientation: the first row is the top, the first column the left
STRAIGHT_LINE, UNCALIBRATED = 0, 20  # ImageJ's numbers of calibration functions


@dataclass(frozen=True)
class Calibration:
    """Value = stored * slope + intercept."""

    slope: float = 1.0
    intercept: float = 0.0


def calibration_of(tiff: tifffile.TiffFile, source: str) -> Calibration:
    """What ImageJ and Fiji state in the description: `cf`, and `c0` + `c1` * stored.

    Signed 16 bit images are stored as unsigned ones with an intercept of -32768.

    Raises:
        UserError: a calibration that is no straight line, or no number; an inverting table.
    """
    stated = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    if tiff.is_imagej and _photometric(tiff.pages.first) == WHITE_IS_ZERO:
        raise UserError(
            f"{source} was saved by ImageJ with an inverting look-up table: whether its values are "
            "inverted, too, programs read in two ways: choose the table Grays, and save again"
        )
    function = stated.get("cf", UNCALIBRATED)
    if function == UNCALIBRATED:
        return Calibration()
    try:
        intercept, slope = (float(str(stated.get(name))) for name in ("c0", "c1"))
    except ValueError:
        intercept, slope = math.nan, math.nan
    if function != STRAIGHT_LINE or not math.isfinite(intercept * slope) or slope == 0:
        raise UserError(
            f"{source} has a calibration of ImageJ (cf={function}, c0={stated.get('c0')}, "
            f"c1={stated.get('c1')}), expected a straight line (cf=0): apply it in ImageJ and save"
        )
    return Calibration(slope, intercept)


def stored_as_meant(page: tifffile.TiffPage) -> bool:
    """Whether the stored numbers of a page are its grey values, so that they may be mapped."""
    return _photometric(page) == BLACK_IS_ZERO


def has_palette(page: tifffile.TiffPage) -> bool:
    """Whether the stored numbers of a page are places in a table of grey values."""
    return _photometric(page) == PALETTE


def check_page_tags(page: tifffile.TiffPage, path: Path) -> None:
    """Refuse a page whose tags would change its values or directions in a way that is not applied.

    Raises:
        UserError: colour, a palette of colours, or another orientation than upright.
    """
    photometric = _photometric(page)
    if page.samplesperpixel != 1 or photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE):
        kind = REFUSED.get(photometric, f"of {page.samplesperpixel} components")
        raise UserError(f"{path} is an RGB or multi-component image ({kind}): save it in grey")
    if photometric == PALETTE and not _is_grey(page.colormap):
        raise UserError(f"{path} has a palette of colours: save it in grey")
    orientation = page.tags.get("Orientation")
    if orientation is not None and int(orientation.value) != UPRIGHT:
        raise UserError(
            f"{path} states the orientation {int(orientation.value)}, turned or mirrored, which "
            "programs read in two ways: save it upright (1)"
        )


def grey_values(pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Grey values of decoded pixels (rows, columns), in their own type.

    Raises:
        ValueError: signed or floating-point numbers with white at 0 have no highest value.
    """
    photometric = _photometric(page)
    if photometric == WHITE_IS_ZERO:
        if pixels.dtype.kind not in "bu":
            raise ValueError(f"white at 0 in pixels of type {pixels.dtype} means nothing")
        highest = 1 if pixels.dtype.kind == "b" else (1 << page.bitspersample) - 1
        return (highest - pixels.astype(np.int64)).astype(pixels.dtype)
    if photometric == PALETTE:
        # A palette has 16 bits, of which the upper ones are the value; some programs write 8.
        table = np.asarray(page.colormap)[0]
        return (table[pixels] >> (8 if table.max() > 255 else 0)).astype(np.uint8)
    return pixels


def _is_grey(palette: np.ndarray | None) -> bool:
    return palette is not None and bool((palette == palette[0]).all())


def _photometric(page: tifffile.TiffPage) -> int:
    """What 0 means; black where a page does not state it, as libtiff takes it."""
    stated = "PhotometricInterpretation" in page.tags
    return int(page.photometric) if stated else BLACK_IS_ZERO
