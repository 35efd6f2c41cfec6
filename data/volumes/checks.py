"""What every format's reader refuses: odd dimensions, voxel types, affines and NaN voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.volumes.mapping import release_pages
from util.errors import UserError


def volume_shape(sizes: Sequence[int], source: str) -> tuple[int, int, int]:
    """Turn a file's sizes (x, y[, z[, 1 ...]]) into (slices, rows, columns).

    A two-dimensional image is one slice; trailing dimensions of 1 are dropped.

    Raises:
        UserError: several time points or components, fewer than two dimensions, zero voxels.
    """
    shown = " x ".join(str(size) for size in sizes)
    if len(sizes) < 2:
        raise UserError(f"{source} has size {shown}: give an image of two or three dimensions")
    if any(size < 1 for size in sizes):
        raise UserError(f"{source} is empty, its size is {shown}: export the volume again")
    if any(size > 1 for size in sizes[3:]):
        raise UserError(
            f"{source} has size {shown}, several time points or components: "
            "save one of them as a three-dimensional volume"
        )
    columns, rows, slices = (*sizes, 1)[:3]
    return int(slices), int(rows), int(columns)


def check_voxel_type(dtype: np.dtype, source: str) -> None:
    """Accept real integers and floats of up to eight bytes, refuse everything else.

    Raises:
        UserError: RGB, complex or other voxels with more than one component.
    """
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        kind = "RGB or multi-component" if dtype.names else str(dtype)
        raise UserError(f"{source} has {kind} voxels: save it with one integer or float per voxel")


def check_affine(affine: np.ndarray, slices: int, source: str) -> np.ndarray:
    """Affine as float64 (4, 4), if it can be inverted.

    A single slice without a thickness gets 1 mm along its normal: two-dimensional images often
    state none.

    Raises:
        UserError: NaN or infinite entries, a voxel size of zero, or directions in one plane.
    """
    matrix = np.array(affine, dtype=np.float64)
    if slices == 1 and not matrix[:3, 2].any():
        normal = np.cross(matrix[:3, 0], matrix[:3, 1])
        matrix[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if np.isfinite(matrix).all() and (spacing > 0).all():
        volume_ratio = abs(np.linalg.det(matrix[:3, :3] / spacing))
        if volume_ratio > 1e-6:
            return matrix
    raise UserError(
        f"{source} states an unusable geometry (voxel size {spacing.tolist()} mm): "
        "repair its spacing and directions, or convert it again from the original"
    )


def check_finite(values: np.ndarray, index: int, source: str) -> None:
    """Refuse NaN and infinite voxels (also beyond float32) in one slice of floats.

    Args:
        values: stored values of the slice; integer slices pass.
        index: its number, counted from 0, for the message.
        source: the file as the user knows it.
    """
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = values.size - int(np.count_nonzero(np.isfinite(values.astype(np.float32))))
    if bad:
        raise UserError(
            f"{source} holds {bad} NaN or infinite voxels in slice {index} (counted from 0): "
            "replace them, for CT with -1000 HU, and save it again"
        )


def check_all_finite(array: np.ndarray, source: str) -> None:
    """`check_finite` for each slice of a mapped volume, keeping one slice in memory."""
    if array.dtype.kind != "f":
        return
    for index in range(array.shape[0]):
        check_finite(np.asarray(array[index]), index, source)
        release_pages(array[index])
