from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.drawn_texture import (
    DIFFERENCES_SHARE,
    OFFSETS,
    Part,
    energy_score,
    held,
    slice_noise,
    start_texture,
    texture_layers,
)
from models.networks import SRGenerator, initialise

LARGEST_OFFSET = max(max(down, abs(across)) for down, across in OFFSETS)


def test_layers_map_features_beside_noise_to_features() -> None:
    layers = texture_layers(6, 3)
    assert layers(torch.zeros(2, 9, 5, 7)).shape == (2, 6, 5, 7)
    assert not isinstance(layers[-1], nn.ReLU)


@torch.no_grad()
def test_new_layers_begin_by_noise_and_faintly() -> None:
    generator = SRGenerator(1, 8, 1, "none", texture=4)
    layers = generator.texture
    assert layers is not None
    initialise(generator)
    features, noise = torch.randn(1, 8, 32, 32), torch.randn(1, 4, 32, 32)
    drawn = torch.cat([features, noise], dim=1)
    before = layers(drawn)
    start_texture(layers, 4)
    parts = [layers[:2](torch.cat([features * on, noise * (1 - on)], dim=1)) for on in (1, 0)]
    assert float(parts[1].std()) > 2 * float(parts[0].std())
    assert float(generator.state_dict()["texture.7.weight"].std()) == pytest.approx(0.005, rel=0.2)
    assert not torch.equal(layers(drawn), before)


def test_a_slice_has_its_own_noise_whatever_comes_before_it() -> None:
    noise = slice_noise(4, (30, 20), index=3)
    assert (noise.shape, noise.dtype) == ((4, 30, 20), np.float32)
    assert np.array_equal(noise, slice_noise(4, (30, 20), index=3))
    for other in (slice_noise(4, (30, 20), index=4), slice_noise(4, (30, 20), index=3, draw=1)):
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.1
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


def test_held_layers_pass_gradients_on_and_take_none() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    layers[0].requires_grad_(False)
    image = torch.ones(1, 1, 2, 2, requires_grad=True)
    with held(layers):
        result = layers(image)
    result.sum().backward()
    assert image.grad is not None
    assert all(weight.grad is None for weight in layers.parameters())
    assert [weight.requires_grad for weight in layers.parameters()] == [False, False, True, True]


def test_a_part_shares_its_layers() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 2, 1))
    part = Part(layers)
    layers.load_state_dict({"0.weight": torch.full((2, 1, 1, 1), 3.0), "0.bias": torch.zeros(2)})
    assert torch.equal(part(torch.ones(1, 1, 1, 1)).flatten(), torch.tensor([3.0, 3.0]))


def draws(count: int, seed: int = 0, edge: int = 64) -> list[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 1, edge, edge, generator=chance) for _ in range(count)]


def test_the_score_of_what_is_certain_and_right_is_0() -> None:
    (truth,) = draws(1)
    assert float(energy_score(truth, truth, truth)) == 0
    assert float(energy_score(truth + 0.5, truth + 0.5, truth)) == pytest.approx(0.5, abs=1e-5)


def test_the_score_is_least_where_draws_are_spread_as_the_truth_is() -> None:
    one, other, truth = draws(3, seed=2)
    scores = {
        spread: float(energy_score(spread * one, spread * other, truth))
        for spread in (0.0, 0.5, 1.0, 1.5, 2.0)
    }
    assert min(scores, key=scores.__getitem__) == 1.0


def test_the_score_sees_texture_where_values_alone_do_not() -> None:
    # Blocks of the same values as white noise: only differences between pixels tell them apart.
    one, other, truth = draws(3, seed=3, edge=256)
    blocks = [image[..., ::4, ::4].repeat_interleave(4, 2) for image in (one, other)]
    coarse = [image.repeat_interleave(4, 3) for image in blocks]
    of_blocks = energy_score(coarse[0], coarse[1], truth)
    assert float(of_blocks) > 1.05 * float(energy_score(one, other, truth))


def test_the_score_does_not_see_what_changes_from_pixel_to_pixel() -> None:
    one, other, truth = draws(3, seed=5)
    grain = 0.3 * (1 - 2 * (torch.arange(64) % 2)).view(1, 1, 1, 64)
    grained = energy_score(one + grain, other + grain, truth)
    assert float(grained) == pytest.approx(float(energy_score(one, other, truth)), rel=1e-5)


def test_the_score_is_that_of_values_and_of_differences_at_all_offsets() -> None:
    # Draws that are once and three times a plane, of a truth of 0: |1| + |3| - |1 - 3| is 2, so the
    # score is the mean of the plane, and the plane's step at an offset is the same everywhere.
    edge = LARGEST_OFFSET + 3
    rows, columns = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    plane = (2.0 * rows + 5.0 * columns).view(1, 1, edge, edge)
    steps = [abs(2 * down + 5 * across) for down, across in OFFSETS]
    expected = 3.5 * (edge - 1) + DIFFERENCES_SHARE * sum(steps) / len(steps)
    score = energy_score(plane, 3 * plane, torch.zeros_like(plane))
    assert float(score) == pytest.approx(expected, rel=1e-5)


def test_no_share_and_no_noise_are_the_best_estimate() -> None:
    generator = SRGenerator(2, 8, 1, "none", "cubic", texture=3).eval()
    image, noise = torch.rand(1, 1, 8, 9) - 0.5, torch.randn(1, 3, 8, 9)
    with torch.no_grad():
        best = generator(image)
        assert torch.equal(generator(image, noise, 0.0), best)
        full, half = generator(image, noise), generator(image, noise, 0.5)
    assert not torch.equal(full, best)
    assert 0 < float((half - best).abs().mean()) < float((full - best).abs().mean())


def test_texture_keeps_the_published_names() -> None:
    plain, textured = SRGenerator(1, 4, 1, "none"), SRGenerator(1, 4, 1, "none", texture=2)
    names = list(textured.state_dict())
    assert names[: len(plain.state_dict())] == list(plain.state_dict())
    assert all(name.startswith("texture.") for name in names[len(plain.state_dict()) :])


def test_texture_needs_a_network_without_norm() -> None:
    with pytest.raises(ValueError, match="expected norm none"):
        SRGenerator(1, 4, 1, "instance", texture=2)
