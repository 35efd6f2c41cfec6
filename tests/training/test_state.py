from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_helpers import save_state, tiny_model, tiny_options

from models.checkpoints.checkpoint import load_generator
from models.medical_cycle_gan import MODELS
from options import TrainOptions
from options.presets import FROM_SCRATCH
from training.state import Position, start_or_resume
from util.errors import UserError
from util.processes import Processes


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
    save_state(tmp_path / "latest.pt", model, Position(3), {}, [])
    with pytest.raises(UserError, match="already holds a model: --continue_train"):
        start_or_resume(tmp_path, model.options, model)
    again = tiny_model("--overwrite")
    assert start_or_resume(tmp_path, again.options, again).position.epoch == 1


def test_resume_takes_up_weights_windows_and_position(tmp_path: Path) -> None:
    model = tiny_model()
    position = Position(3, offset=4, step=11)
    windows = {"normalization": "window", "clinical": {"low": -1000.0, "high": 500.0}}
    save_state(tmp_path / "latest.pt", model, position, windows, ["aa"])
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


def test_training_starts_from_the_weights_of_another_run(tmp_path: Path) -> None:
    first = tiny_model("--seed", "5", "--norm", "none", "--skip", "cubic")
    save_state(tmp_path / "first.pt", first, Position(7), {}, ["aa"])
    words = ("--norm", "none", "--skip", "cubic", "--ema", "0.9")
    second = tiny_model(*words, "--init_weights", str(tmp_path / "first.pt"))
    start = start_or_resume(tmp_path / "second", second.options, second)
    assert (start.position.epoch, start.position.step) == (1, 0)
    assert start.digests == {"aa"}
    assert second.average is not None
    for network in (second.G_A, second.average.network):
        for name, weight in first.G_A.state_dict().items():
            assert torch.equal(network.state_dict()[name], weight)
    assert not torch.equal(next(iter(first.D_A.parameters())), next(iter(second.D_A.parameters())))
    own = ("--norm", "instance", "--skip", "none")
    other = tiny_model(*own, "--init_weights", str(tmp_path / "first.pt"))
    message = "norm none instead of instance, skip cubic instead of none: give the options"
    with pytest.raises(UserError, match=message):
        start_or_resume(tmp_path / "third", other.options, other)


def test_texture_begins_beside_weights_that_have_none(tmp_path: Path) -> None:
    words = ("--norm", "none", "--skip", "cubic", "--ema", "0.9")
    first = tiny_model(*words, "--seed", "5")
    save_state(tmp_path / "first.pt", first, Position(7))
    texture = ("--texture_noise", "2", "--lambda_texture", "1")
    second = tiny_model(*words, *texture, "--init_weights", str(tmp_path / "first.pt"))
    drawn = second.G_A.state_dict()["texture.1.weight"].clone()
    start_or_resume(tmp_path / "second", second.options, second)
    assert second.average is not None
    for network in (second.G_A, second.average.network):
        for name, weight in first.G_A.state_dict().items():
            assert torch.equal(network.state_dict()[name], weight)
        assert torch.equal(network.state_dict()["texture.1.weight"], drawn)
    # A model without texture takes the rest of weights that have it.
    save_state(tmp_path / "second.pt", second, Position(7))
    third = tiny_model(*words, "--init_weights", str(tmp_path / "second.pt"), "--seed", "8")
    said: list[str] = []
    start_or_resume(tmp_path / "third", third.options, third, said.append)
    assert len(said) == 1
    assert "texture layers of" in said[0]
    assert "are left out" in said[0]
    for name, weight in first.G_A.state_dict().items():
        assert torch.equal(third.G_A.state_dict()[name], weight)
    more = ("--texture_noise", "5", "--lambda_texture", "1")
    fourth = tiny_model(*words, *more, "--init_weights", str(tmp_path / "second.pt"))
    with pytest.raises(UserError, match="texture 2 instead of 5"):
        start_or_resume(tmp_path / "fourth", fourth.options, fourth)


@pytest.mark.parametrize("preset", FROM_SCRATCH)
def test_presets_begin_from_the_weights_that_come_with_the_project(
    preset: str, tmp_path: Path
) -> None:
    options, _ = TrainOptions().parse(["--preset", preset], lambda: 0)
    model = MODELS[options.model](options, torch.device("cpu"))
    start_or_resume(tmp_path / "new", options, model)
    given = load_generator(Path(options.init_weights)).generator.state_dict()
    for name, weight in model.G_A.state_dict().items():
        assert torch.equal(weight, given[name])


def test_a_run_of_before_texture_goes_on_without_it(tmp_path: Path) -> None:
    words = ("--norm", "none", "--skip", "cubic")
    first = tiny_model(*words)
    del first.options.texture_noise
    save_state(tmp_path / "latest.pt", first, Position(7))
    again = tiny_model(*words)
    again.options.continue_train = True
    assert start_or_resume(tmp_path, again.options, again).position.epoch == 7
    other = tiny_model(*words, "--texture_noise", "2", "--lambda_texture", "1")
    other.options.continue_train = True
    with pytest.raises(UserError, match="was trained with --texture_noise 0, got 2"):
        start_or_resume(tmp_path, other.options, other)


def test_resume_refuses_another_architecture(tmp_path: Path) -> None:
    model = tiny_model()
    save_state(tmp_path / "latest.pt", model, Position(1), {}, [])
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


def test_a_checkpoint_of_version_1_goes_on(tmp_path: Path) -> None:
    """It knew one process, no moving average, and no fused optimiser."""
    model = tiny_model()
    path = tmp_path / "latest.pt"
    save_state(path, model, Position(2, step=7), {"normalization": "window"})
    state = torch.load(path, weights_only=True)
    (own,) = state.pop("processes")
    del state["average"]
    for optimizer in state["optimizers"].values():
        for group in optimizer["param_groups"]:
            group["fused"] = None
    torch.save({**state, **own, "version": 1}, path)
    drawn = torch.rand(3)
    other = tiny_model("--seed", "5", "--ema", "0.9")
    other.options.continue_train = True
    start = start_or_resume(tmp_path, other.options, other)
    assert (start.position.step, other.steps) == (7, 7)
    assert torch.equal(torch.rand(3), drawn)
    assert other.average is not None
    for name, weight in model.G_A.state_dict().items():
        assert torch.equal(other.average.network.state_dict()[name], weight)
    assert all(g["fused"] for o in other.optimizers.values() for g in o.param_groups)
    assert load_generator(path).step == 7


def test_a_process_that_the_saved_run_did_not_have_starts_with_its_own_chances(
    tmp_path: Path,
) -> None:
    model = tiny_model()
    model.pool_A.query(torch.zeros(1, 1, 32, 32))
    save_state(tmp_path / "latest.pt", model, Position(2))
    for rank, images in ((0, 1), (1, 0)):
        options = tiny_options()
        options.continue_train = True
        other = MODELS[options.model](options, torch.device("cpu"), Processes(rank, 2))
        torch.manual_seed(50 + rank)
        start_or_resume(tmp_path, options, other)
        assert len(other.pool_A.images) == images
        assert (torch.initial_seed() == 51) == (rank == 1)
