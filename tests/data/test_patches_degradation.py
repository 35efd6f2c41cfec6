"""Tests for data/patches.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.patches import shrink
from util.errors import UserError


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_area_shares_its_grid_with_average_pooling(scale: int) -> None:
    image = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(image)[None, None], scale)[0, 0]
    small = shrink(image, scale)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, pooled.numpy(), atol=1e-6)


def test_area_known_answer() -> None:
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert shrink(image, 2, "area").tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_area_leaves_no_trace_of_a_fine_checkerboard_and_zoom_aliases_it() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 2.0 - 1.0).astype(np.float32)
    assert np.abs(shrink(board, 8, "area")).max() < 1e-6
    assert np.abs(shrink(board, 8, "zoom")).max() > 0.3


def test_zoom_is_the_published_one_with_its_drift() -> None:
    ramp = np.tile(np.arange(256, dtype=np.float32), (256, 1))
    centres = np.arange(32) * 8 + 3.5
    np.testing.assert_allclose(shrink(ramp, 8, "area")[5], centres, atol=1e-3)
    zoomed = shrink(ramp, 8, "zoom")
    assert zoomed.shape == (32, 32)
    assert zoomed.dtype == np.float32
    # Corner pixel centres are mapped onto corner pixel centres: half a block too far outwards.
    assert zoomed[5, 0] - centres[0] == pytest.approx(-3.5, abs=1e-3)


@pytest.mark.parametrize("method", ["area", "zoom"])
def test_size_that_is_no_multiple_is_refused(method: str) -> None:
    with pytest.raises(UserError, match="30x32 pixels cannot be shrunk 8 times"):
        shrink(np.zeros((32, 30), np.float32), 8, method)  # type: ignore[arg-type]


def test_unknown_method_is_refused() -> None:
    with pytest.raises(UserError, match="'lanczos' is not known: give one of area, zoom"):
        shrink(np.zeros((8, 8), np.float32), 8, "lanczos")  # type: ignore[arg-type]
