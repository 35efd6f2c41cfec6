from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import CPU, disc, image, small_generator

from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator
from util.errors import UserError
from util.images.intensity_window import IntensityWindow

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def generator() -> SRGenerator:
    return small_generator(2)


WINDOW = IntensityWindow(-1000.0, 500.0)


def test_a_volume_in_hu_is_enlarged_slice_by_slice(generator: SRGenerator) -> None:
    resolver = SuperResolver(generator, CPU)
    volume = np.random.default_rng(0).integers(-1200, 600, (3, 12, 10)).astype(np.int16)
    before = volume.copy()
    found = resolver.upscale(volume, window=WINDOW)
    assert (found.shape, found.dtype) == ((3, 48, 40), np.float32)
    assert np.array_equal(volume, before)
    for one, values in zip(found, volume, strict=True):
        unit = resolver.upscale_slice(WINDOW.to_unit(values))
        np.testing.assert_allclose(one, WINDOW.to_physical(unit), atol=1e-2)
        assert np.array_equal(resolver.upscale(values, window=WINDOW).shape, one.shape)


def test_slices_without_lung_stay_at_the_low_end(generator: SRGenerator) -> None:
    resolver = SuperResolver(generator, CPU)
    resolver.window = WINDOW
    volume = np.random.default_rng(0).uniform(-1000, 500, (2, 40, 44))
    mask = np.stack([disc(40, 44, 20, 20, 19), np.zeros((40, 44), dtype=bool)])
    found = resolver.upscale(volume, mask)
    unit = resolver.upscale_slice(WINDOW.to_unit(volume[0]), mask[0])
    np.testing.assert_allclose(found[0], WINDOW.to_physical(unit), atol=1e-2)
    assert np.all(found[1] == -1000)


def test_a_volume_without_window_or_of_another_shape_is_refused(generator: SRGenerator) -> None:
    resolver = SuperResolver(generator, CPU)
    with pytest.raises(UserError, match="no fixed intensity window: give window="):
        resolver.upscale(np.zeros((2, 8, 8)))
    with pytest.raises(UserError, match=r"shape \(8,\) .*give \(slices, rows, columns\)"):
        resolver.upscale(np.zeros(8), window=WINDOW)
    with pytest.raises(UserError, match=r"mask of shape \(8, 8\)"):
        resolver.upscale(np.zeros((2, 8, 8)), np.zeros((8, 8)), WINDOW)
    with pytest.raises(UserError, match=r"volume of shape \(0, 8, 8\)"):
        resolver.upscale(np.zeros((0, 8, 8)), window=WINDOW)
    for value in (np.nan, np.inf):
        volume = np.zeros((2, 8, 8))
        volume[1, 2, 3] = value
        with pytest.raises(UserError, match="the volume holds NaN or infinite values"):
            resolver.upscale(volume, window=WINDOW)


def test_a_bare_state_dict_is_loaded_without_window(tmp_path: Path) -> None:
    generator = small_generator(2)
    torch.save(generator.state_dict(), tmp_path / "weights.pth")
    resolver = SuperResolver.from_checkpoint(tmp_path / "weights.pth", "cpu", tile_size=8)
    assert resolver.window is None
    assert (resolver.scale, resolver.tile_size) == (4, 8)
    expected = SuperResolver(generator, CPU, tile_size=8).upscale_slice(image(12, 9))
    assert np.array_equal(resolver.upscale_slice(image(12, 9)), expected)
