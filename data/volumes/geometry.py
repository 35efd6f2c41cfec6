"""Affines of enlarged and shrunk images: the image's corner stays where it is."""

from __future__ import annotations

from itertools import product

import numpy as np


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
