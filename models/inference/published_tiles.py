"""Tiles as in the published test: each with its own norm statistics, seams and all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def enlarge_in_tiles(
    image: np.ndarray, tile: int, scale: int, enlarge: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Cut a slice into tiles and enlarge each as if it were a slice of its own.

    Args:
        image: float32 (rows, columns) in [-1, 1].
        tile: edge of a tile in input pixels. One at the far border is moved inwards to its full
            size, then cut.
        scale: of the enlargement.
        enlarge: (rows, columns) -> (rows * scale, columns * scale).

    Returns:
        float32 (rows * scale, columns * scale).
    """
    rows, columns = image.shape
    enlarged = np.empty((rows * scale, columns * scale), dtype=np.float32)
    for top, bottom in tile_edges(rows, tile):
        for left, right in tile_edges(columns, tile):
            first_row, first_column = max(0, bottom - tile), max(0, right - tile)
            part = enlarge(image[first_row:bottom, first_column:right])
            enlarged[top * scale : bottom * scale, left * scale : right * scale] = part[
                (top - first_row) * scale :, (left - first_column) * scale :
            ]
    return enlarged


def tile_edges(length: int, tile: int) -> list[tuple[int, int]]:
    """Cut 0..length into pieces [start, stop) of `tile`, the last one shorter where needed."""
    return [(start, min(start + tile, length)) for start in range(0, length, tile)]
