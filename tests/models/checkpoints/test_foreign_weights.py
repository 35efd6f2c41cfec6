from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import tiny_model

from models.checkpoints.checkpoint import load_generator, load_original_weights
from models.checkpoints.foreign_weights import as_published, opened, unlike
from models.networks import SRGenerator
from util.errors import UserError

Weights = dict[str, Tensor]


def generator() -> SRGenerator:
    torch.manual_seed(4)
    return SRGenerator(2, ngf=8, blocks=2)


def named(prefix: str, weights: Weights) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


def with_statistics(weights: Weights) -> Weights:
    """As torch before 0.4 saved instance norms."""
    counts = {"model.2": 8, "model.4.conv_block.2": 8, "model.4.conv_block.6": 8}
    old = {f"{key}.running_mean": torch.zeros(count) for key, count in counts.items()}
    return {**weights, **old, **{key.replace("mean", "var"): old[key] + 1 for key in old}}


def with_dropout(weights: Weights) -> Weights:
    return {key.replace("conv_block.5.", "conv_block.6."): one for key, one in weights.items()}


WRAPPED: dict[str, Callable[[Weights], Any]] = {
    "bare": lambda weights: weights,
    "DataParallel": lambda weights: named("module.", weights),
    "torch.compile": lambda weights: named("_orig_mod.", weights),
    "both": lambda weights: named("module._orig_mod.", weights),
    "BasicSR": lambda weights: {"params": named("x", weights), "params_ema": weights},
    "state_dict": lambda weights: {"epoch": 3, "state_dict": named("module.", weights)},
    "optimizer": lambda weights: {"optimizer": {"state": {}}, "model_state_dict": weights},
    "beside a number": lambda weights: {"best": torch.ones(1), "state_dict": weights},
    "nested": lambda weights: {"model": {"state_dict": weights}},
    "trainer": lambda weights: {
        "state_dict": {**named("netG_A.", weights), **named("netD_A.", {"0.weight": torch.ones(3)})}
    },
    "four networks": lambda weights: {"G_B": {"a": torch.ones(1)}, "G_A": weights},
    "old torch": with_statistics,
    "dropout": with_dropout,
    "old dropout": lambda weights: named("module.", with_statistics(with_dropout(weights))),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_known_wrappers_and_variants_are_the_same_network(tmp_path: Path, name: str) -> None:
    network = generator().eval()
    torch.save(WRAPPED[name](dict(network.state_dict())), tmp_path / "weights.pth")
    loaded = load_generator(tmp_path / "weights.pth")
    images = torch.rand(1, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded.generator(images), network(images))
    assert loaded.generator.architecture == network.architecture


def test_running_statistics_of_batch_norm_stay() -> None:
    weights = SRGenerator(1, 8, 1, norm="batch").state_dict()
    assert as_published(weights).keys() == weights.keys()


def test_the_four_original_files_may_have_dropout(tmp_path: Path) -> None:
    model = tiny_model()
    for name, network in model.networks.items():
        torch.save(with_dropout(dict(network.state_dict())), tmp_path / f"latest_net_{name}.pth")
    weights = load_original_weights(tmp_path, "latest")
    assert weights is not None
    other = tiny_model("--seed", "3")
    other.load_networks(weights)
    for name, network in model.networks.items():
        assert unlike(network.state_dict(), other.networks[name].state_dict()) is None


COMPLEX_SPARSE_AND_EMPTY: list[Callable[[Tensor], Tensor]] = [
    lambda value: value.to(torch.complex64),
    lambda value: value.to_sparse(),
    lambda value: torch.empty_like(value, device="meta"),
]


def changed(key: str, value: Tensor | None) -> Weights:
    weights = dict(generator().state_dict())
    del weights[key]
    return weights if value is None else {**weights, key: value}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (changed("model.4.conv_block.5.bias", None), "it lacks model.4.conv_block.5.bias"),
        (
            changed("model.5.conv_block.5.weight", torch.ones(8, 4, 3, 3)),
            "model.5.conv_block.5.weight is 8x4x3x3, expected 8x8x3x3",
        ),
        (
            {**generator().state_dict(), "model.99.bias": torch.ones(2)},
            "model.99.bias is none of its weights",
        ),
        (
            {"features.0.weight": torch.ones(64, 3, 3, 3)},
            "it lacks model.1.weight, and begins with features.0.weight",
        ),
        (
            nn.Sequential(*[nn.Conv2d(3, 8, 7)]).state_dict(),
            "it lacks model.1.weight, and begins with 0.weight",
        ),
        *[
            (
                {key: make(value) for key, value in generator().state_dict().items()},
                "model.1.weight is complex, sparse or empty, expected plain real numbers",
            )
            for make in COMPLEX_SPARSE_AND_EMPTY
        ],
        ({"epoch": 3, "loss": 0.5}, "it holds epoch, loss, no weights"),
        ({}, "it holds nothing, no weights"),
        ([torch.ones(3)], "it holds a list, not weights by their names"),
        (torch.ones(3), "it holds a Tensor, not weights by their names"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, state: Any, reason: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(UserError) as raised:
        load_generator(path)
    assert str(raised.value) == (
        f"{path} does not hold an SR generator ({reason}): give a checkpoint of train.py or a G_A "
        "state dict"
    )


def test_wrappers_are_not_opened_for_ever() -> None:
    state: dict[str, Any] = {}
    state["model"] = state
    with pytest.raises(ValueError, match="it holds model, no weights"):
        opened(state)
