from __future__ import annotations

import pytest
import torch

from models.discriminators import PatchDiscriminator, make_discriminator
from models.networks import count_parameters


def test_published_layout_of_the_discriminator() -> None:
    assert count_parameters(PatchDiscriminator()) == 2_762_689
    assert list(PatchDiscriminator(8).state_dict())[-2:] == ["model.11.weight", "model.11.bias"]


def test_discriminator_maps_of_the_published_patch_sizes() -> None:
    discriminator = PatchDiscriminator(4)
    assert discriminator(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 2, 2)
    assert discriminator(torch.zeros(1, 1, 256, 256)).shape == (1, 1, 30, 30)
    assert make_discriminator("pixel", 4, 3, "none")(torch.zeros(1, 1, 9, 9)).shape == (1, 1, 9, 9)
    deeper = make_discriminator("n_layers", 4, 4, "instance")
    assert count_parameters(deeper) > count_parameters(discriminator)


def test_discriminator_sees_70_pixels() -> None:
    # Without norm nothing but the receptive field carries an influence.
    discriminator = PatchDiscriminator(2, norm="none")
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    discriminator(image)[0, 0, 7, 7].backward()
    assert image.grad is not None
    rows = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == 70


def test_an_unknown_discriminator_is_refused() -> None:
    with pytest.raises(ValueError, match="netD is 'deep'"):
        make_discriminator("deep", 4, 3, "none")
