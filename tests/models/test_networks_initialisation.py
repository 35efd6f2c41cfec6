"""How new weights are drawn."""

from __future__ import annotations

import pytest
import torch

from models.networks import (
    DownsamplingGenerator,
    SRGenerator,
    initialise,
    start_without_checkerboard,
)


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    generator = DownsamplingGenerator(2, ngf=16, blocks=2)
    initialise(generator)
    weights = torch.cat([p.detach().flatten() for p in generator.parameters() if p.dim() == 4])
    assert float(weights.mean()) == pytest.approx(0, abs=1e-3)
    assert float(weights.std()) == pytest.approx(0.02, rel=0.02)
    assert all(
        float(p.detach().abs().max()) == 0 for n, p in generator.named_parameters() if "bias" in n
    )


@pytest.mark.parametrize("init_type", ["xavier", "kaiming", "orthogonal"])
def test_other_initialisations_differ(init_type: str) -> None:
    generator = SRGenerator(1, ngf=4, blocks=1)
    before = generator.state_dict()["model.1.weight"].clone()
    initialise(generator, init_type, 0.5)
    assert not torch.equal(before, generator.state_dict()["model.1.weight"])


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_a_start_without_checkerboard_enlarges_as_nearest_neighbour(norm: str) -> None:
    torch.manual_seed(0)
    generator = SRGenerator(2, 8, 1, norm)
    initialise(generator, "xavier", 1.0)
    images = torch.rand(1, 1, 12, 12)
    blocks = generator.model[:-3](images)[..., 8:-8, 8:-8]  # before the output layer

    def spread(values: torch.Tensor) -> float:
        """Largest difference within the 2x2 pixels that one shuffle put side by side."""
        tiles = values.unfold(2, 2, 2).unfold(3, 2, 2)
        return float((tiles.amax((-1, -2)) - tiles.amin((-1, -2))).detach().max())

    assert spread(blocks) > 0.05
    start_without_checkerboard(generator)
    assert spread(generator.model[:-3](images)) < 1e-5
