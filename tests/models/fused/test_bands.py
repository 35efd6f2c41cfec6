"""Bands: together they read and give back what a convolution of the whole map does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.bands import (
    ConvolutionSettings,
    arguments,
    cut_into_bands,
    pad_rows,
    result_shape,
    unpad_gradient,
)

GEOMETRIES = {
    "mirrored": (ConvolutionSettings(reflect=1), (5, 4, 3, 3)),
    "mirrored widely": (ConvolutionSettings(reflect=3), (5, 4, 7, 7)),
    "zeros": (ConvolutionSettings(padding=1), (5, 4, 3, 3)),
    "shuffled": (ConvolutionSettings(padding=1, shuffled=True), (5, 1, 3, 3)),
    "output": (ConvolutionSettings(stride=2, unshuffled=True), (16, 4, 6, 6)),
    "narrow": (ConvolutionSettings(), (5, 4, 1, 1)),
    "strided": (ConvolutionSettings(stride=2, padding=1), (5, 4, 3, 3)),
    "even kernel": (ConvolutionSettings(padding=1), (5, 4, 4, 4)),
    "transposed": (
        ConvolutionSettings(stride=2, padding=1, transposed=True, output_padding=1),
        (4, 5, 3, 3),
    ),
}


def mapped(seed: int, height: int = 22, width: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 4, height, width, generator=generator, dtype=torch.float64)
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("values", [0, 1, 700, 10**6])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_bands_cover_each_row_once_and_give_the_whole(name: str, values: int) -> None:
    geometry, weight = GEOMETRIES[name]
    x, kernel = mapped(0), torch.randn(weight, dtype=torch.float64)
    shape = result_shape(x.shape, kernel.shape, geometry)
    bands = cut_into_bands(x.shape, shape[2], geometry, values)
    assert [band.first for band in bands[1:]] == [band.last for band in bands[:-1]]
    assert (bands[0].first, bands[-1].last) == (0, shape[2])

    def convolved(parts: list) -> Tensor:
        rows = [
            torch.ops.aten.convolution(
                pad_rows(x[:, :, band.low : band.high], band, geometry),
                kernel,
                None,
                *arguments(geometry),
            )
            for band in parts
        ]
        return torch.cat(rows, dim=2)

    found = convolved(bands)
    assert tuple(found.shape) == shape
    whole = convolved(cut_into_bands(x.shape, shape[2], geometry, 0))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [12, 13])
@pytest.mark.parametrize("values", [0, 1, 700])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_fold_is_the_adjoint_of_spread(name: str, values: int, width: int) -> None:
    geometry, weight = GEOMETRIES[name]
    x = mapped(0, width=width)
    shape = result_shape(x.shape, torch.Size(weight), geometry)
    for band in cut_into_bands(x.shape, shape[2], geometry, values):
        rows = x[:, :, band.low : band.high].clone().requires_grad_(True)
        read = pad_rows(rows, band, geometry)
        given = torch.randn(read.shape, dtype=torch.float64)
        (expected,) = (given,) if read is rows else torch.autograd.grad(read, rows, given)
        found = unpad_gradient(given.clone(), band, geometry, width)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_shapes_are_those_of_the_layers() -> None:
    x = mapped(1)
    layers = {
        "mirrored widely": F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), torch.zeros(
            5, 4, 7, 7, dtype=x.dtype)),
        "strided": F.conv2d(x, torch.zeros(5, 4, 3, 3, dtype=x.dtype), stride=2, padding=1),
        "transposed": F.conv_transpose2d(
            x, torch.zeros(4, 5, 3, 3, dtype=x.dtype), stride=2, padding=1, output_padding=1
        ),
    }  # fmt: skip
    for name, expected in layers.items():
        geometry, weight = GEOMETRIES[name]
        assert result_shape(x.shape, torch.Size(weight), geometry) == tuple(expected.shape)
