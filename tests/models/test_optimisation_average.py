from __future__ import annotations

import pytest
import torch
from torch import nn
from training_helpers import save_state, tiny_batch, tiny_model

from models.checkpoints.checkpoint import load_generator
from models.optimisation import WeightAverage
from training.state import Position


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


def test_the_average_follows_with_a_short_start() -> None:
    network = linear(0.0)
    average = WeightAverage(network, 0.9)
    expected = 0.0
    for step, value in enumerate((1.0, 5.0, 2.0)):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(average.network.weight[0, 0]) == pytest.approx(expected)  # type: ignore[index]
    assert all(not parameter.requires_grad for parameter in average.network.parameters())


def test_the_decay_holds_in_the_long_run() -> None:
    average = WeightAverage(linear(0.0), 0.5)
    average.steps = 1000
    average.update(linear(1.0))
    assert float(average.network.weight[0, 0]) == 0.5  # type: ignore[index]


def test_buffers_are_copied() -> None:
    norm = nn.BatchNorm2d(3)
    average = WeightAverage(norm, 0.9)
    norm(torch.randn(4, 3, 5, 5))
    average.update(norm)
    assert torch.equal(average.network.running_mean, norm.running_mean)  # type: ignore[arg-type]


def test_state_returns() -> None:
    first = WeightAverage(linear(1.0), 0.9)
    first.update(linear(3.0))
    second = WeightAverage(linear(7.0), 0.9)
    second.load_state_dict(first.state_dict())
    assert second.steps == 1
    assert torch.equal(second.network.weight, first.network.weight)  # type: ignore[arg-type]


def test_a_checkpoint_brings_the_average_to_the_test(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model("--ema", "0.999")
    model.set_input(tiny_batch())
    for _ in range(3):
        model.optimize_parameters()
    save_state(tmp_path / "latest.pt", model, Position(1, step=3))
    loaded = load_generator(tmp_path / "latest.pt").generator.state_dict()
    assert model.average is not None
    averaged, live = model.average.network.state_dict(), model.G_A.state_dict()
    assert all(torch.equal(loaded[name], averaged[name]) for name in loaded)
    assert any(not torch.equal(loaded[name], live[name]) for name in loaded)
