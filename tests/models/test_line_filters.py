"""Cubic enlargement and blur against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from models.line_filters import (
    _phases,
    beside_cubic,
    enlarge_cubic,
    gaussian_weights,
    weighted_neighbours,
)


def test_blur_by_gaussian_weights_is_that_of_scipy() -> None:
    image = torch.rand(2, 3, 17, 12, dtype=torch.float64)
    found = weighted_neighbours(image, gaussian_weights(1.3, 4))
    expected = ndimage.gaussian_filter(image.numpy(), 1.3, radius=4, axes=(2, 3))
    np.testing.assert_allclose(found, expected[:, :, 4:-4, 4:-4], rtol=1e-12)


def test_weights_need_not_be_symmetric() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(weighted_neighbours(image, [0.0, 1.0]), image[:, :, 1:, 1:])


@pytest.mark.parametrize("scale", [1, 2, 4, 8, 16])
def test_parabolas_come_out_as_parabolas_on_a_grid_with_common_corners(scale: int) -> None:
    """Keys' kernel with a = -0.5 is exact for polynomials of the second degree."""
    x = torch.arange(14, dtype=torch.float64)
    image = (0.3 * x**2 - 2 * x + 1) + (0.1 * x[:, None] ** 2 + x[:, None])
    enlarged = enlarge_cubic(image[None, None], scale)
    fine = (torch.arange(14 * scale, dtype=torch.float64) + 0.5) / scale - 0.5
    expected = (0.3 * fine**2 - 2 * fine + 1) + (0.1 * fine[:, None] ** 2 + fine[:, None])
    inner = slice(2 * scale, -2 * scale)
    torch.testing.assert_close(enlarged[0, 0, inner, inner], expected[inner, inner])


def test_antialiased_interpolation_of_torch_agrees() -> None:
    """torch takes a = -0.5 there, and enlarging needs no smoothing."""
    image = torch.rand(2, 1, 9, 12, dtype=torch.float64)
    theirs = torch.nn.functional.interpolate(image, scale_factor=4, mode="bicubic", antialias=True)
    inner = slice(8, -8)  # at the border torch leaves taps out instead of repeating the edge
    torch.testing.assert_close(
        enlarge_cubic(image, 4)[..., inner, inner], theirs[..., inner, inner]
    )


def test_constants_stay_constant_to_the_edge() -> None:
    image = torch.full((1, 1, 5, 4), 0.7)
    torch.testing.assert_close(enlarge_cubic(image, 8), torch.full((1, 1, 40, 32), 0.7))


@pytest.mark.parametrize("rows", [(0, 1), (0, 9), (3, 5), (7, 9), (8, 9)])
def test_rows_are_those_of_the_whole(rows: tuple[int, int]) -> None:
    image = torch.rand(2, 1, 9, 7)
    part = enlarge_cubic(image, 4, rows)
    torch.testing.assert_close(part, enlarge_cubic(image, 4)[:, :, rows[0] * 4 : rows[1] * 4])


@pytest.mark.parametrize(("top", "height"), [(0, 36), (0, 3), (6, 2), (33, 3)])
def test_a_band_is_added_to_its_own_rows(top: int, height: int) -> None:
    image, band = torch.rand(2, 1, 9, 7), torch.rand(2, 1, height, 28)
    expected = band + enlarge_cubic(image, 4)[:, :, top : top + height]
    torch.testing.assert_close(beside_cubic(band, image, 4, top), expected)


def test_autocast_does_not_coarsen_the_image() -> None:
    image = torch.rand(1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = enlarge_cubic(image, 2)
    assert torch.equal(found, enlarge_cubic(image, 2))


def test_what_inference_asked_for_first_serves_training() -> None:
    _phases.cache_clear()
    with torch.inference_mode():
        enlarge_cubic(torch.zeros(1, 1, 8, 8, dtype=torch.float64), 4)
    image = torch.zeros(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    enlarge_cubic(image, 4).sum().backward()
    assert image.grad is not None
