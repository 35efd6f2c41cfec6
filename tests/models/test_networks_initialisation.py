"""How new weights are drawn."""

from __future__ import annotations

import pytest
import torch

from models.networks import (
    DownsamplingGenerator,
    SRGenerator,
    even_out_shuffles,
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


def test_even_shuffles_leave_no_grid_in_a_flat_image_and_the_rest_as_it_is() -> None:
    torch.manual_seed(0)
    generator = SRGenerator(3, 8, 1, "none", "cubic")
    initialise(generator, "xavier", 1.0)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0, 0.1)

    def grid(image: torch.Tensor) -> float:
        """Largest range within a cell in the middle, out of reach of the padded edges."""
        cells = image[..., 96:-96, 96:-96].unfold(2, 8, 8).unfold(3, 8, 8)
        return float((cells.amax((-1, -2)) - cells.amin((-1, -2))).detach().max())

    flat = torch.full((1, 1, 32, 32), 0.3)
    layers = [layer for layer in generator.upsampling if isinstance(layer, torch.nn.Conv2d)]
    before = [layer.weight.detach().clone() for layer in layers]
    assert grid(generator(flat)) > 0.02
    even_out_shuffles(generator)
    assert grid(generator(flat)) < 1e-5
    for old, layer in zip(before, layers, strict=True):
        change = layer.weight.detach() - old
        # Only the mean over the taps moved, and in no mean over the four.
        torch.testing.assert_close(change, change[..., :1, :1].expand_as(change))
        means = change.unflatten(0, (-1, 4)).mean(1)
        torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-6, rtol=0)
    state = {name: value.clone() for name, value in generator.state_dict().items()}
    even_out_shuffles(generator)
    for name, value in generator.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=1e-6, rtol=0)
