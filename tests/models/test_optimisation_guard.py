from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.optimisation import guarded_step
from util.processes import ALONE


def prepared(*gradients: float) -> tuple[torch.optim.Adam, list[torch.nn.Parameter]]:
    """An optimiser whose parameters of two numbers each have these gradients, and one without."""
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in gradients]
    idle = torch.nn.Parameter(torch.ones(2))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.full((2,), gradient)
    return torch.optim.Adam([*parameters, idle], lr=0.1, fused=True), parameters


def test_a_step_tells_the_gradients_norm_and_moves() -> None:
    optimizer, parameters = prepared(3.0, 4.0)
    norm, skipped = guarded_step(optimizer, ALONE, None)
    assert float(norm) == pytest.approx(50**0.5)
    assert float(skipped) == 0
    for parameter in parameters:
        assert torch.allclose(parameter, torch.full((2,), 0.9))


@pytest.mark.parametrize("largest", [1.0, 100.0])
def test_gradients_are_shrunk_to_the_largest_norm_and_never_grown(largest: float) -> None:
    optimizer, parameters = prepared(3.0, 4.0)
    norm, _ = guarded_step(optimizer, ALONE, largest)
    assert float(norm) == pytest.approx(50**0.5)  # as it was
    left = torch.cat([parameter.grad for parameter in parameters if parameter.grad is not None])
    assert float(left.norm()) == pytest.approx(min(largest, 50**0.5), rel=1e-4)
    assert float(left[2] / left[0]) == pytest.approx(4 / 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("largest", [None, 1.0])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, largest: float | None) -> None:
    optimizer, parameters = prepared(3.0, 4.0)
    guarded_step(optimizer, ALONE, None)
    before = [parameter.detach().clone() for parameter in parameters]
    moments = optimizer.state[parameters[0]]["exp_avg"].clone()
    assert parameters[0].grad is not None
    parameters[0].grad[1] = bad
    _, skipped = guarded_step(optimizer, ALONE, largest)
    assert float(skipped) == 1
    assert all(torch.equal(old, new) for old, new in zip(before, parameters, strict=True))
    assert torch.equal(optimizer.state[parameters[0]]["exp_avg"], moments)
    assert float(optimizer.state[parameters[0]]["step"]) == 1
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    guarded_step(optimizer, ALONE, largest)  # and the next one goes on
    assert not torch.equal(before[0], parameters[0])


def test_plain_adam_moves_the_same() -> None:
    """Fused or not, to rounding."""
    results: list[Tensor] = []
    for fused in (True, False):
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 9))
        optimizer = torch.optim.Adam([parameter], lr=1e-2, betas=(0.5, 0.999), fused=fused)
        for step in range(5):
            parameter.grad = torch.cos(parameter.detach() * (step + 1))
            if fused:
                guarded_step(optimizer, ALONE, None)
            else:
                optimizer.step()
        results.append(parameter.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
