"""Norm and activation of raw maps: what autograd gives, with the statistics' own gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import models.fused.activation
from models.fused.activation import BehindActivation, known_slope, norm_activate, rows_at_once
from models.fused.statistics import measure

EPS = 1e-5


def raw_map() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 20, 7, generator=generator, dtype=torch.float64) * 2 + 1
    return values.contiguous(memory_format=torch.channels_last)


def layers(x: Tensor, normed: bool, slope: Tensor | float | None) -> Tensor:
    values = F.instance_norm(x, eps=EPS) if normed else x
    if isinstance(slope, Tensor):
        return F.prelu(values, slope)
    return values if slope is None else F.leaky_relu(values, slope)


@pytest.mark.parametrize("cuts", [[0, 20], [0, 4, 9, 20], list(range(21))])
@pytest.mark.parametrize("overlap", [0, 2])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("slope", [None, 0.0, 0.2, "trained"])
def test_gradients_that_come_in_bands(
    cuts: list[int],
    overlap: int,
    normed: bool,
    slope: float | str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models.fused.activation, "TRAINING_BAND_VALUES", 100)
    x = raw_map().requires_grad_(True)
    parameter = torch.full((1,), 0.25, dtype=torch.float64, requires_grad=True)
    chosen = parameter if slope == "trained" else slope
    assert not isinstance(chosen, str)
    expected = layers(x, normed, chosen)
    norm = measure(x.detach()).affine(EPS, torch.float64) if normed else None
    trained = chosen.detach() if isinstance(chosen, Tensor) else chosen
    torch.testing.assert_close(
        norm_activate(x.detach(), norm, known_slope(trained)), expected.detach()
    )

    behind = BehindActivation(x.detach(), norm, trained)
    total = torch.zeros_like(x)
    for first, last in itertools.pairwise(cuts):
        low, high = max(0, first - overlap), min(20, last + overlap)
        part = torch.randn(2, 3, high - low, 7, dtype=torch.float64)
        total[:, :, low:high] += part
        behind.add(part, low, high)
    found, to_slope = behind.result()
    expected.backward(total)
    assert x.grad is not None
    torch.testing.assert_close(found, x.grad)
    assert (to_slope is None) == (slope != "trained")
    if to_slope is not None:
        torch.testing.assert_close(to_slope, parameter.grad)


def test_finished_rows_are_no_view_of_the_kept_map() -> None:
    x = raw_map()
    before = x.clone()
    norm_activate(x, None, 0.0)
    norm_activate(x, (torch.ones(()), torch.zeros(())), 0.1)
    assert torch.equal(x, before)


def test_a_slope_is_a_number_wherever_it_lies() -> None:
    assert known_slope(torch.tensor([0.25])) == 0.25
    assert known_slope(0.2) == 0.2
    assert known_slope(None) is None
    assert known_slope(torch.empty(1, device="meta")) == 0


def test_a_band_has_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.fused.activation, "TRAINING_BAND_VALUES", 2 * 3 * 7 * 5 + 3)
    assert rows_at_once(raw_map()) == 5
    monkeypatch.setattr(models.fused.activation, "TRAINING_BAND_VALUES", 1)
    assert rows_at_once(raw_map()) == 1
