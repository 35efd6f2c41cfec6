"""The one reader of the networks' layers: every kind of stage, and what is refused."""

from __future__ import annotations

import pytest
import torch
from engine_helpers import small_generator
from torch import nn

from models.discriminators import PatchDiscriminator
from models.networks import DownsamplingGenerator, SRGenerator
from models.stages import Stage, read_residual, read_stage, read_stages


def test_the_generators_parts_are_its_layers() -> None:
    generator = small_generator(3, blocks=2)
    parts: list[list[nn.Module]] = [
        list(generator.stem),
        list(generator.blocks),
        list(generator.merge),
    ]
    assert list(generator.trunk) == [layer for part in parts for layer in part]
    parts += [list(generator.upsampling), list(generator.output)]
    assert [layer for part in parts for layer in part] == list(generator.model)
    assert len(generator.blocks) == 2
    assert [type(layer) for layer in generator.upsampling][2::4] == [nn.PixelShuffle] * 3


def test_stages_of_the_sr_generator() -> None:
    generator = small_generator(2, blocks=1)
    stem, block, merge, first, second, output = read_stages(generator.model)
    assert isinstance(stem, Stage)
    assert stem == read_stage(generator.stem)
    assert (stem.reflect, stem.shuffled, stem.tanh) == (3, False, False)
    assert stem.slope is generator.stem[3].weight
    assert block == read_residual(generator.blocks[0])
    assert isinstance(block, tuple)
    assert [half.slope for half in block] == [0.0, None]
    assert merge == read_stage(generator.merge)
    assert isinstance(first, Stage)
    assert isinstance(second, Stage)
    assert isinstance(output, Stage)
    # A shuffle belongs to the stage that reads what it makes.
    assert [stage.shuffled for stage in (first, second, output)] == [False, True, True]
    assert [stage.reflect for stage in (first, second, output)] == [0, 0, 3]
    assert (output.norm, output.slope, output.tanh) == (None, None, True)


def test_stages_of_the_other_networks() -> None:
    stages = read_stages(DownsamplingGenerator(2, 4, 1).model)
    kinds = [stage.convolution if isinstance(stage, Stage) else None for stage in stages]
    assert [type(kind) for kind in kinds] == [nn.Conv2d] * 3 + [type(None)] + [
        nn.ConvTranspose2d
    ] * 2 + [nn.Conv2d] * 3
    critic = read_stages(PatchDiscriminator(4).model)
    assert [stage.slope for stage in critic if isinstance(stage, Stage)] == [0.2] * 4 + [None]


def block_of(generator: SRGenerator) -> nn.Sequential:
    return generator.blocks[0].conv_block


@pytest.mark.parametrize("layer", [nn.PReLU(8), nn.GELU(), nn.GroupNorm(2, 8)])
def test_layers_that_are_not_understood_are_refused(layer: nn.Module) -> None:
    generator = small_generator()
    generator.model[3] = layer
    with pytest.raises(ValueError, match=f"of this project's networks, got {type(layer).__name__}"):
        read_stages(generator.model)
    block_of(generator)[3] = layer
    with pytest.raises(ValueError, match=f"of this project's networks, got {type(layer).__name__}"):
        read_residual(generator.blocks[0])
    with pytest.raises(ValueError, match=f"of this project's networks, got {type(layer).__name__}"):
        read_stages([layer])


def test_a_convolution_without_bias_is_refused() -> None:
    generator = small_generator()
    block_of(generator)[1] = nn.Conv2d(8, 8, 3, bias=False)
    with pytest.raises(ValueError, match="a convolution with bias"):
        read_stages(generator.model)


def test_one_stage_is_one_convolution() -> None:
    with pytest.raises(ValueError, match="expected one convolution"):
        read_stage(small_generator().blocks[:1])
    with torch.no_grad(), pytest.raises(ValueError, match="not enough values"):
        read_stage([])
