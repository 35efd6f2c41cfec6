from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.output_layer import (
    BLOCK,
    EDGE,
    OutputConvolution,
    pad_unshuffled,
    unshuffled_kernel,
)

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(2, 2), (2, 3), (3, 2), (2, 9), (3, 3), (4, 7), (5, 4), (6, 6), (7, 11), (16, 13)]


def layer(channels: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(1, channels, 7, 7, generator=draw) / 7, torch.tensor([0.1])


def level(rows: int, columns: int, channels: int = 3, count: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, 4 * channels, rows, columns, generator=draw)


def published(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The published layers: shuffle, mirror by 3, 7x7 convolution, tanh."""
    padded = F.pad(F.pixel_shuffle(rows, 2), (3, 3, 3, 3), mode="reflect")
    return F.conv2d(padded, weight, bias).tanh()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_it_equals_the_published_layers_on_the_shuffled_map(
    size: tuple[int, int], channels: int
) -> None:
    weight, bias = layer(channels)
    rows = level(*size, channels)
    expected = published(rows, weight, bias)
    output = OutputConvolution(weight, bias)
    result = output(rows, EDGE, EDGE + size[0] % 2)
    height, width = expected.shape[2:]
    assert result.shape[2:] == (height + height % BLOCK, width + width % BLOCK)
    torch.testing.assert_close(result[:, :, :height, :width], expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("height", [2, 3, 4, 5, 12, 13])
def test_bands_of_rows_are_the_rows_of_the_whole(height: int, step: int) -> None:
    weight, bias = layer(2)
    rows = level(height, 6, 2)
    expected = published(rows, weight, bias)
    output = OutputConvolution(weight, bias)
    parts = []
    for pair in range(0, -(-height // 2), step):
        low = 2 * pair - EDGE
        high = 2 * min(pair + step, -(-height // 2)) + EDGE
        above, below = max(0, -low), max(0, high - height)
        parts.append(output(rows[:, :, low + above : high - below], above, below))
    result = torch.cat(parts, dim=2)[:, :, : 2 * height]
    torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)


def test_the_kernel_holds_the_weights_once_for_each_output_pixel() -> None:
    weight, _ = layer(3)
    weight[weight == 0] = 1.0
    kernel = unshuffled_kernel(weight)
    assert kernel.shape == (16, 12, 6, 6)
    for pixel in kernel:
        assert torch.equal(pixel[pixel != 0].sort().values, weight.flatten().sort().values)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("length", [2, 3, 8])
def test_mirroring_the_unshuffled_map_mirrors_its_image(dim: int, length: int) -> None:
    rows = level(length, length, 2)
    before, after = EDGE, EDGE + length % 2
    image = F.pixel_shuffle(pad_unshuffled(rows, dim, before, after), 2)
    # Of four mirrored image rows the kernel sees three.
    seen = slice(1, 4 + 2 * length + 3)
    sides = (0, 0, 3, 3) if dim == 2 else (3, 3, 0, 0)
    expected = F.pad(F.pixel_shuffle(rows, 2), sides, mode="reflect")
    found = image[:, :, seen] if dim == 2 else image[:, :, :, seen]
    assert torch.equal(found, expected)
    assert bool(torch.isfinite(image).all())


def test_mirroring_leaves_its_source_alone() -> None:
    rows = level(4, 5)
    before = rows.clone()
    pad_unshuffled(rows, 2, 2, 2)
    pad_unshuffled(rows, 3, 2, 3)
    assert torch.equal(rows, before)
    assert pad_unshuffled(rows, 2, 0, 0) is rows


def test_half_precision_gives_float32_within_the_range() -> None:
    weight, bias = layer(3)
    output = OutputConvolution(weight.bfloat16(), bias.bfloat16())
    result = output(level(6, 6).bfloat16() * 10, EDGE, EDGE)
    assert result.dtype == torch.float32
    assert float(result.abs().max()) <= 1
