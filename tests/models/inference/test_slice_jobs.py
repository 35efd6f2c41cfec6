from __future__ import annotations

import numpy as np
import pytest
from engine_helpers import image

from models.inference.slice_jobs import enlarge_in_tiles, tile_edges


def repeated(values: np.ndarray) -> np.ndarray:
    """Enlargement by nearest neighbour, for which tiles make no difference."""
    result: np.ndarray = values.repeat(2, 0).repeat(2, 1)
    return result


def test_tile_edges_touch_without_gap_or_overlap() -> None:
    assert tile_edges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert tile_edges(8, 4) == [(0, 4), (4, 8)]
    assert tile_edges(3, 4) == [(0, 3)]


@pytest.mark.parametrize("size", [(10, 13), (8, 8), (4, 4), (3, 9), (1, 1)])
@pytest.mark.parametrize("tile", [4, 5, 64])
def test_tiles_cover_every_pixel_at_its_place(size: tuple[int, int], tile: int) -> None:
    values = image(*size)
    found = enlarge_in_tiles(values, tile, 2, repeated)
    assert found.dtype == np.float32
    assert np.array_equal(found, repeated(values))


def test_every_tile_has_full_size_where_the_slice_has_room() -> None:
    shapes = []

    def enlarge(part: np.ndarray) -> np.ndarray:
        shapes.append(part.shape)
        return repeated(part)

    enlarge_in_tiles(image(10, 3), 4, 2, enlarge)
    assert shapes == [(4, 3)] * 3
    shapes.clear()
    enlarge_in_tiles(image(10, 7), 4, 2, enlarge)
    assert shapes == [(4, 4)] * 6


def test_a_tile_at_the_far_border_is_moved_inwards_and_cut() -> None:
    values = image(6, 4)
    found = enlarge_in_tiles(values, 4, 2, lambda part: np.full((8, 8), part[0, 0], np.float32))
    assert np.array_equal(np.unique(found[:8]), [values[0, 0]])
    # The second tile covers rows 2 to 6; rows 2 and 3 stay the first one's.
    assert np.array_equal(np.unique(found[8:]), [values[2, 0]])
