"""SuperResolver from Python: a checkpoint in, a volume in HU in, a volume in HU out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import save_state, tiny_model, write_checkpoint

from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from models.inference.super_resolver import SuperResolver
from models.networks import DownsamplingGenerator
from training.state import Position
from util.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints"), "run")


def hu(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-1200, 700, shape).astype(np.int16)


def test_a_volume_is_enlarged_in_the_checkpoints_window(checkpoint: Path) -> None:
    resolver = SuperResolver.from_checkpoint(str(checkpoint), "cpu")
    assert resolver.window == CLINICAL_WINDOW
    assert resolver.scale == 2
    volume = hu(3, 20, 17)
    found = resolver.upscale(volume)
    assert (found.shape, found.dtype) == ((3, 40, 34), np.float32)
    assert found.min() >= -1000 - 1e-3
    assert found.max() <= 500 + 1e-3
    for index, section in enumerate(volume):
        unit = resolver.upscale_slice(CLINICAL_WINDOW.to_unit(section))
        # Grouped slices and single ones are other sums in float32.
        np.testing.assert_allclose(found[index], CLINICAL_WINDOW.to_physical(unit), atol=0.01)
    np.testing.assert_allclose(resolver.upscale(volume[1]), found[1], atol=0.01)


def test_a_window_of_ones_own(checkpoint: Path) -> None:
    resolver = SuperResolver.from_checkpoint(checkpoint, torch.device("cpu"))
    window = IntensityWindow(-900, 300)
    found = resolver.upscale(hu(12, 12), window=window)
    unit = resolver.upscale_slice(window.to_unit(hu(12, 12)))
    np.testing.assert_array_equal(found, window.to_physical(unit))
    assert resolver.window == CLINICAL_WINDOW


def test_a_lung_mask_gives_the_statistics(checkpoint: Path) -> None:
    resolver = SuperResolver.from_checkpoint(checkpoint, "cpu")
    volume = hu(2, 24, 24)
    mask = np.zeros(volume.shape, dtype=bool)
    mask[0, 4:20, 3:21] = True
    found = resolver.upscale(volume, mask)
    unit = resolver.upscale_slice(CLINICAL_WINDOW.to_unit(volume[0]), mask[0])
    np.testing.assert_array_equal(found[0], CLINICAL_WINDOW.to_physical(unit))
    assert (found[1] == -1000).all()
    np.testing.assert_array_equal(resolver.upscale(volume[0], mask[0]), found[0])


def test_settings_reach_the_resolver(checkpoint: Path) -> None:
    resolver = SuperResolver.from_checkpoint(checkpoint, "cpu", precision="bf16", tile_size=16)
    assert (resolver.precision, resolver.tile_size) == ("bf16", 16)
    assert resolver.upscale(hu(1, 20, 20)).shape == (1, 40, 40)


def test_a_model_of_minmax_normalization_needs_a_window(tmp_path: Path) -> None:
    model = tiny_model()
    windows = WindowPolicy("minmax", CLINICAL_WINDOW, IntensityWindow(0, 10000)).as_dict()
    save_state(tmp_path / "latest.pt", model, Position(1), windows, [])
    resolver = SuperResolver.from_checkpoint(tmp_path / "latest.pt", "cpu")
    assert resolver.window is None
    with pytest.raises(UserError, match=r"window=IntensityWindow\(low, high\)"):
        resolver.upscale(hu(1, 8, 8))


def test_what_holds_no_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint .*missing\.pt"):
        SuperResolver.from_checkpoint(tmp_path / "missing.pt")
    torch.save(DownsamplingGenerator(1, 4, 1).state_dict(), tmp_path / "G_B.pth")
    with pytest.raises(UserError, match=r"G_B\.pth does not hold an SR generator"):
        SuperResolver.from_checkpoint(tmp_path / "G_B.pth")
