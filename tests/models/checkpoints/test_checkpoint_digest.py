from __future__ import annotations

from pathlib import Path

import torch
from training_helpers import save_state, tiny_model

from models.checkpoints.checkpoint import load_generator, weights_digest
from models.networks import SRGenerator
from training.state import Position


def test_a_digest_depends_on_the_weights_and_not_on_their_file(tmp_path: Path) -> None:
    """A checkpoint, the same at another step and place, and its bare weights are one model."""
    model = tiny_model()
    windows = {"normalization": "window"}
    paths = [tmp_path / "first.pt", tmp_path / "other" / "second.pt", tmp_path / "bare.pth"]
    save_state(paths[0], model, Position(1), windows, [])
    save_state(paths[1], model, Position(3, step=9), windows, ["aa"])
    weights = load_generator(paths[0]).generator.state_dict()
    torch.save({f"module.{key}": weights[key] for key in reversed(weights)}, paths[2])
    digests = {load_generator(path).digest for path in paths}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_every_weight_counts() -> None:
    torch.manual_seed(0)
    network = SRGenerator(1, ngf=2, blocks=1)
    seen = {weights_digest(network)}
    for values in network.state_dict().values():
        flat = values.view(-1)
        before = flat[-1].item()
        flat[-1] = before + 1e-3
        seen.add(weights_digest(network))
        flat[-1] = before
    assert len(seen) == 1 + len(network.state_dict())
    assert weights_digest(network) in seen


def test_shape_and_precision_count() -> None:
    torch.manual_seed(0)
    first = torch.nn.Linear(2, 3, bias=False)
    second = torch.nn.Linear(3, 2, bias=False)
    second.weight.data = first.weight.data.reshape(2, 3)
    assert weights_digest(first) != weights_digest(second)
    digest = weights_digest(first)
    assert weights_digest(first.double()) != digest
