"""Length units as image files spell them, in millimetres."""

from __future__ import annotations

MILLIMETRES_PER_UNIT = {
    "m": 1e3,
    "meter": 1e3,
    "metre": 1e3,
    "cm": 10.0,
    "centimeter": 10.0,
    "centimetre": 10.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "um": 1e-3,
    "\u00b5m": 1e-3,  # micro sign
    "\u03bcm": 1e-3,  # Greek mu
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "nanometre": 1e-6,
    "in": 25.4,
    "inch": 25.4,
}


def millimetres_per(unit: str) -> float | None:
    """Length of one unit in mm: "micron" -> 0.001; None for an unknown word (pixel, "", ...)."""
    word = unit.strip().lower().replace("\\u00b5", "\u00b5")
    return MILLIMETRES_PER_UNIT.get(word) or MILLIMETRES_PER_UNIT.get(word.removesuffix("s"))
