from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from training_helpers import tiny_model

from training.held_back import Sample
from training.validation import Validator, describe, enlarge, is_better
from util.images.metrics import psnr


class Repeating:
    """Stands for a model whose G_A repeats each pixel and adds a constant."""

    average = None
    device = torch.device("cpu")
    G_A = torch.nn.Identity()

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def run(self, network: Any, images: torch.Tensor) -> torch.Tensor:
        return images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) + self.shift


def test_scores_of_a_known_enlargement() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(-0.5, 0.5, (2, 12, 12)).astype(np.float32)
    high = low.repeat(2, axis=1).repeat(2, axis=2)
    samples = [Sample(low[0], high[0], 50.0), Sample(low[1], high[1], 50.0)]
    found = Validator(samples, 2).score(Repeating(0.1))  # type: ignore[arg-type]
    assert found["psnr"] == pytest.approx(10 * np.log10(4 / 0.01), abs=1e-4)
    assert found["consistency"] == pytest.approx(5.0, rel=1e-4)
    assert 0.8 < found["ssim"] < 1
    # Clinical CT alone decides on consistency where there is any.
    clinical = Sample(low[0], None, 750.0)
    found = Validator([*samples, clinical], 2).score(Repeating(0.1))  # type: ignore[arg-type]
    assert found["consistency"] == pytest.approx(75.0, rel=1e-4)
    assert describe(found).startswith("PSNR 26.02 dB, SSIM 0.")


def test_a_model_is_held_against_cubic_interpolation() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(-0.5, 0.5, (12, 12)).astype(np.float32)
    high = low.repeat(2, axis=0).repeat(2, axis=1)
    validator = Validator([Sample(low, high, 50.0)], 2)
    cubic = ndimage.zoom(low, 2, order=3, mode="grid-mirror", grid_mode=True)
    assert validator.cubic["psnr"] == pytest.approx(psnr(cubic, high, 2.0), abs=1e-4)
    assert validator.verdict("paper") is None  # nothing was scored yet
    validator.score(Repeating(0.5))  # type: ignore[arg-type]
    told = validator.verdict("paper")
    assert told is not None
    assert "cubic spline interpolation is better in PSNR (PSNR " in told
    assert "train longer, or take --preset adapt (docs" in told
    assert "give a lower --lr" in str(validator.verdict("adapt"))  # it was taken already
    validator.score(Repeating(0.01))  # type: ignore[arg-type]
    assert validator.verdict("paper") is None


def test_a_model_is_scored_without_moving_it_and_by_its_average() -> None:
    model = tiny_model("--ema", "0.9")
    assert model.average is not None
    image = np.linspace(-1, 1, 400, dtype=np.float32).reshape(20, 20)
    before = torch.random.get_rng_state()
    first = enlarge(model, image)
    assert first.shape == (40, 40)
    assert torch.equal(before, torch.random.get_rng_state())
    with torch.no_grad():
        next(model.G_A.parameters()).zero_()
    np.testing.assert_array_equal(enlarge(model, image), first)
    assert model.G_A.training
    sample = Sample(image, np.zeros((40, 40), np.float32), 1.0)
    found = Validator([sample], 2).score(model)
    assert found["psnr"] == pytest.approx(psnr(first, np.zeros((40, 40)), 2.0))


def test_better_is_more_but_for_consistency() -> None:
    assert is_better("psnr", 20.0, None)
    assert is_better("psnr", 20.0, 19.0)
    assert not is_better("ssim", 0.5, 0.5)
    assert is_better("consistency", 10.0, 12.0)
    assert not is_better("consistency", 12.0, 10.0)


def test_scoring_does_not_teach_batch_norm() -> None:
    model = tiny_model("--norm", "batch")
    before = {name: value.clone() for name, value in model.G_A.state_dict().items()}
    enlarge(model, np.linspace(-1, 1, 400, dtype=np.float32).reshape(20, 20))
    assert all(torch.equal(value, before[name]) for name, value in model.G_A.state_dict().items())
    assert model.G_A.training
