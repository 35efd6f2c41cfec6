from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from util.errors import UserError
from util.seeds import random_states, restore_random_states, seed_everything


def _draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),  # noqa: NPY002 - the legacy generator is under test
        float(np.random.randn()),  # noqa: NPY002
        float(torch.rand(())),
        float(torch.randn(3).sum()),
    ]


def test_one_seed_one_sequence() -> None:
    seed_everything(7)
    first = _draw()
    seed_everything(7)
    assert _draw() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(_draw(), first, strict=True))


def test_states_go_on_where_they_were_through_a_weights_only_checkpoint(tmp_path: Path) -> None:
    seed_everything(7)
    _draw()  # leaves half a pair of Gaussian numbers in Python's and NumPy's generators
    torch.save({"random": random_states()}, tmp_path / "a.pth")
    expected = [_draw() for _ in range(3)]
    seed_everything(99)
    restore_random_states(torch.load(tmp_path / "a.pth", weights_only=True)["random"])
    assert [_draw() for _ in range(3)] == expected


def test_cuda_is_not_started_to_ask_for_its_state() -> None:
    if torch.cuda.is_initialized():
        pytest.skip("another test has started CUDA")
    assert random_states()["cuda"] == []
    assert not torch.cuda.is_initialized()


@pytest.mark.gpu
def test_cuda_states_go_on_where_they_were() -> None:
    seed_everything(7)
    torch.rand(3, device="cuda")
    states = random_states()
    expected = torch.rand(3, device="cuda")
    states["cuda"] = [state.cuda() for state in states["cuda"]]  # as map_location would do
    restore_random_states(states)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


def test_states_of_surplus_devices_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    states = random_states()
    states["cuda"] = [torch.full((16,), value, dtype=torch.uint8) for value in (1, 2, 3)]
    restored: dict[int, int] = {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(
        "torch.cuda.set_rng_state",
        lambda state, device: restored.update({device: int(state[0])}),
    )
    restore_random_states(states)
    assert restored == {0: 1, 1: 2}


def test_what_cannot_be_used_is_said() -> None:
    with pytest.raises(UserError, match="expected 0 to 4294967295"):
        seed_everything(-1)
    with pytest.raises(UserError, match="seed is 4294967296"):
        seed_everything(2**32)
    with pytest.raises(UserError, match=r"random states cannot be used .*python.*resume from"):
        restore_random_states({})
    states = random_states()
    states["torch"] = torch.zeros(3)
    with pytest.raises(UserError, match="random states cannot be used"):
        restore_random_states(states)
