from __future__ import annotations

import math

import pytest
import torch

from models.optimisation import make_scheduler, resume_rate, step_scheduler


def rates(policy: str, epochs: int, niter: int, niter_decay: int, **settings: int) -> list[float]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    first, every = settings.get("first_epoch", 1), settings.get("every", 2)
    scheduler = make_scheduler(optimizer, policy, niter, niter_decay, first, every)
    found = []
    for _ in range(epochs):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        step_scheduler(scheduler, 1.0)
    return found


def test_linear_really_decays_to_zero() -> None:
    assert rates("linear", 8, 4, 4) == pytest.approx([1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    published = rates("linear", 200, 100, 100)
    assert published[99] == 1
    assert 0 < published[199] < 0.01


@pytest.mark.parametrize("policy", ["linear", "cosine", "step"])
def test_a_later_first_epoch_joins_the_schedule(policy: str) -> None:
    whole = rates(policy, 8, 4, 4)
    assert rates(policy, 3, 4, 4, first_epoch=6) == pytest.approx(whole[5:])


def test_other_policies() -> None:
    assert rates("step", 5, 4, 0, every=2) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert rates("constant", 4, 1, 3) == [1, 1, 1, 1]
    cosine = rates("cosine", 4, 2, 2)
    assert cosine == pytest.approx([(1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)])
    plateau = rates("plateau", 9, 5, 5)
    assert plateau[0] == 1
    assert plateau[-1] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="lr_policy is 'warm'"):
        rates("warm", 1, 1, 1)


def test_a_finished_run_that_is_prolonged_learns_again() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler(optimizer, "linear", 2, 2, 1, 1)
    for _ in range(4):
        optimizer.step()
        step_scheduler(scheduler, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
    longer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    prolonged = make_scheduler(longer, "linear", 6, 2, 1, 1)
    longer.load_state_dict(optimizer.state_dict())
    prolonged.load_state_dict(scheduler.state_dict())
    resume_rate(longer, prolonged, 1.0, 1.0)
    assert longer.param_groups[0]["lr"] == 1.0
    resume_rate(longer, prolonged, 1.0, 0.25)
    assert longer.param_groups[0]["lr"] == 0.25
