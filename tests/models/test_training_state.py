from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_helpers import tiny_model

from models.training_state import Position, save_training_state, start_or_resume
from util.errors import UserError


def test_position_counts_and_returns() -> None:
    position = Position(1)
    position.advance(4, torch.tensor(2.0))
    position.advance(2, torch.tensor(3.0))
    assert (position.step, position.offset, position.mean_loss()) == (2, 6, 2.5)
    again = Position.from_state(position.state_dict())
    assert again.state_dict() == position.state_dict()
    position.next_epoch()
    assert (position.epoch, position.offset, position.step, position.mean_loss()) == (2, 0, 2, 0)


def test_a_fresh_start_does_not_replace_a_model(tmp_path: Path) -> None:
    model = tiny_model()
    assert start_or_resume(tmp_path, model.options, model).position.epoch == 1
    save_training_state([tmp_path / "latest.pt"], model, model.options, Position(3), {}, [])
    with pytest.raises(UserError, match="already holds a model: --continue_train"):
        start_or_resume(tmp_path, model.options, model)
    again = tiny_model("--overwrite")
    assert start_or_resume(tmp_path, again.options, again).position.epoch == 1


def test_resume_takes_up_weights_windows_and_position(tmp_path: Path) -> None:
    model = tiny_model()
    position = Position(3, offset=4, step=11)
    windows = {"normalization": "window", "clinical": {"low": -1000.0, "high": 500.0}}
    save_training_state([tmp_path / "latest.pt"], model, model.options, position, windows, ["aa"])
    drawn = torch.rand(3)
    other = tiny_model("--seed", "9")
    other.options.continue_train = True
    start = start_or_resume(tmp_path, other.options, other)
    found, stored = start.position, start.windows
    assert start.digests == {"aa"}
    assert (found.epoch, found.offset, found.step) == (3, 4, 11)
    assert stored == windows
    assert torch.equal(torch.rand(3), drawn)  # the random state is back, too
    assert torch.equal(
        model.G_A.state_dict()["model.1.weight"], other.G_A.state_dict()["model.1.weight"]
    )


def test_resume_refuses_another_architecture(tmp_path: Path) -> None:
    model = tiny_model()
    save_training_state([tmp_path / "latest.pt"], model, model.options, Position(1), {}, [])
    wider = tiny_model("--ngf", "8")
    wider.options.continue_train = True
    with pytest.raises(UserError, match="was trained with --ngf 4, got 8"):
        start_or_resume(tmp_path, wider.options, wider)
    with pytest.raises(UserError, match="no checkpoint"):
        start_or_resume(tmp_path / "nothing", wider.options, wider)


def test_original_weights_start_at_the_epoch_count(tmp_path: Path) -> None:
    source = tiny_model("--seed", "4")
    for name, network in source.networks.items():
        torch.save(network.state_dict(), tmp_path / f"latest_net_{name}.pth")
    model = tiny_model("--epoch_count", "2", "--niter", "3")
    model.options.continue_train = True
    start = start_or_resume(tmp_path, model.options, model)
    position, windows = start.position, start.windows
    assert position.epoch == 2
    assert position.step == 0
    assert windows is None
    weight = source.D_B.state_dict()["model.0.weight"]
    assert torch.equal(weight, model.D_B.state_dict()["model.0.weight"])
    narrow = tiny_model("--ngf", "8")
    narrow.options.continue_train = True
    with pytest.raises(UserError, match=r"do not fit these networks \(.*size mismatch"):
        start_or_resume(tmp_path, narrow.options, narrow)
