"""Affines of enlarged and shrunk images, whose corner stays where it is; units of length in mm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # of DICOM and ITK; its own inverse
RIGHT_ANGLE = 1e-4  # cosine: float32 headers and DICOM's decimal strings lose less

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
    "km": 1e6,
    "kilometer": 1e6,
    "dm": 100.0,
    "decimeter": 100.0,
    "pm": 1e-9,
    "picometer": 1e-9,
    "\u00e5": 1e-7,
    "angstrom": 1e-7,
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


def screen_affine(spacing: Sequence[float], first: Sequence[float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """RAS+ affine of formats that state no directions (TIFF, pictures, Zarr), as ITK reads them.

    Columns run from the patient's right to left and rows from anterior to posterior, as those of an
    axial CT slice on the screen: x and y of LPS, which are -x and -y of RAS.

    Args:
        spacing: voxel size (x, y, z) in mm.
        first: place (x, y, z) of the first voxel's centre in mm, along these axes.
    """
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = first
    return LPS_TO_RAS @ affine


def enlarged_affine(affine: np.ndarray, scale: int) -> np.ndarray:
    """Affine of a volume whose pixels were split into scale x scale in-plane.

    The centre of the new first voxel lies at voxel ((1/k - 1)/2, (1/k - 1)/2, 0) of the input,
    so that the outer corners of both volumes coincide.

    Args:
        affine: (4, 4), voxel index (x, y, z) -> mm.
        scale: in-plane factor k.

    Returns:
        (4, 4) float64; columns x and y are divided by k, z is kept.
    """
    return _rescaled(affine, 1.0 / scale)


def shrunk_affine(affine: np.ndarray, scale: int) -> np.ndarray:
    """Affine of a volume whose pixels were joined in blocks of scale x scale in-plane.

    The inverse of `enlarged_affine`: columns x and y times k, origin at voxel
    ((k - 1)/2, (k - 1)/2, 0) of the input.
    """
    return _rescaled(affine, float(scale))


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the axes of an affine (4, 4) do not stand at right angles, by more than rounding."""
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    directions = columns / np.linalg.norm(columns, axis=0)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > RIGHT_ANGLE)


def corners(affine: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Outer corners of a block of voxels, half a voxel beyond the centres of the last ones.

    Args:
        affine: (4, 4), voxel index (x, y, z) -> mm.
        size: voxels along (x, y, z).

    Returns:
        (8, 3) float64 in mm, z varying fastest.
    """
    indices = np.array(list(product(*((-0.5, length - 0.5) for length in size))))
    matrix = np.asarray(affine, dtype=np.float64)
    return indices @ matrix[:3, :3].T + matrix[:3, 3]


def _rescaled(affine: np.ndarray, factor: float) -> np.ndarray:
    """Compose the affine with new voxel index -> old voxel index, pixels `factor` times wider."""
    shift = (factor - 1.0) / 2.0
    new_to_old = np.diag([factor, factor, 1.0, 1.0])
    new_to_old[:2, 3] = shift
    return np.asarray(affine, dtype=np.float64) @ new_to_old
