from __future__ import annotations

import numpy as np
import pytest
import torch

from models.networks import SRGenerator
from models.super_resolver import SuperResolver, tile_edges

CPU = torch.device("cpu")


@pytest.fixture
def generator() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(2, ngf=8, blocks=1)


def image(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (rows, columns)).astype(np.float32)


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (1, 1), (3, 50)])
def test_any_size_is_enlarged_whole(generator: SRGenerator, size: tuple[int, int]) -> None:
    result = SuperResolver(generator, CPU).upscale_slice(image(*size))
    assert result.shape == (size[0] * 4, size[1] * 4)
    assert result.dtype == np.float32


def test_whole_slice_equals_the_generator_and_runs_it_once(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = image(20, 24)
    with torch.no_grad():
        expected = generator(torch.from_numpy(values)[None, None])[0, 0].numpy()
    calls = []
    original = SRGenerator.forward

    def counted(self: SRGenerator, clinical: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return original(self, clinical)

    monkeypatch.setattr(SRGenerator, "forward", counted)
    assert np.array_equal(SuperResolver(generator, CPU).upscale_slice(values), expected)
    assert len(calls) == 1


def test_tiles_cover_everything_with_their_own_statistics(generator: SRGenerator) -> None:
    values = image(40, 50)
    tiled = SuperResolver(generator, CPU, tile_size=16).upscale_slice(values)
    assert tiled.shape == (160, 200)
    with torch.no_grad():
        first = generator(torch.from_numpy(values[:16, :16])[None, None])[0, 0].numpy()
        last = generator(torch.from_numpy(values[24:, 34:])[None, None])[0, 0].numpy()
    np.testing.assert_allclose(tiled[:64, :64], first, atol=1e-6)
    # The last tile is moved inwards to full size; only its uncovered part is used.
    np.testing.assert_allclose(tiled[128:, 192:], last[32:, 56:], atol=1e-6)
    whole = SuperResolver(generator, CPU).upscale_slice(values)
    assert np.abs(tiled - whole).max() > 1e-3


def test_a_tile_larger_than_the_slice_is_the_whole_slice(generator: SRGenerator) -> None:
    values = image(12, 30)
    whole = SuperResolver(generator, CPU).upscale_slice(values)
    tiled = SuperResolver(generator, CPU, tile_size=64).upscale_slice(values)
    assert np.array_equal(whole, tiled)


def test_tile_edges_touch_without_gap_or_overlap() -> None:
    assert tile_edges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert tile_edges(8, 4) == [(0, 4), (4, 8)]
    assert tile_edges(3, 4) == [(0, 3)]


def test_bf16_is_near_fp32(generator: SRGenerator) -> None:
    values = image(24, 24)
    exact = SuperResolver(generator, CPU).upscale_slice(values)
    rough = SuperResolver(generator, CPU, "bf16").upscale_slice(values)
    assert 0 < np.abs(exact - rough).mean() < 0.05
