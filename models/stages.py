"""The networks read as stages: one convolution each, with what stands around it.

Each network is one flat `nn.Sequential`, since its indices are the state-dict contract. Both
engines need the same layers grouped: padding and shuffle before a convolution, norm and activation
behind it. This is the one place that groups them. Only layers of models/networks.py are understood;
nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from models.networks import ResidualBlock


@dataclass(frozen=True)
class Stage:
    """One convolution with the layers around it."""

    convolution: nn.Conv2d | nn.ConvTranspose2d  # with a bias
    bias: Tensor  # of the convolution
    reflect: int  # rows and columns mirrored on each side before it
    shuffled: bool  # whether its input first goes through PixelShuffle(2)
    # instance or batch norm behind it; None where there is none
    norm: nn.InstanceNorm2d | nn.BatchNorm2d | None = None
    # of the activation below zero: PReLU's one parameter, a number (0 is a ReLU), or None for no
    # activation
    slope: Tensor | float | None = None
    tanh: bool = False  # whether tanh ends it


Residual = tuple[Stage, Stage]
"""A residual block: x + second(first(x))."""


def read_stages(layers: Iterable[nn.Module]) -> list[Stage | Residual]:
    """Group a network's layers.

    Args:
        layers: of a network's `model`, or of a part of it that begins where a stage does.

    Raises:
        ValueError: a layer that none of the networks has.
    """
    found: list[Stage | Residual] = []
    reflect, shuffled = 0, False
    for layer in layers:
        if isinstance(layer, nn.ReflectionPad2d):
            reflect = layer.padding[0]
        elif isinstance(layer, nn.PixelShuffle):
            shuffled = True
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            if layer.bias is None:
                raise ValueError(f"expected a convolution with bias, got {layer}")
            found.append(Stage(layer, layer.bias, reflect, shuffled))
            reflect, shuffled = 0, False
        elif isinstance(layer, ResidualBlock):
            found.append(read_residual(layer))
        elif found and isinstance(found[-1], Stage):
            found[-1] = _with_layer_behind(found[-1], layer)
        else:
            raise ValueError(f"expected a layer of this project's networks, got {layer}")
    return found


def read_stage(layers: Iterable[nn.Module]) -> Stage:
    """The one stage that these layers are."""
    (stage,) = read_stages(layers)
    if not isinstance(stage, Stage):
        raise ValueError(f"expected one convolution with the layers around it, got {layers}")
    return stage


def read_residual(block: ResidualBlock) -> Residual:
    """The two stages of a residual block."""
    first, second = read_stages(block.conv_block)
    if not isinstance(first, Stage) or not isinstance(second, Stage):
        raise ValueError(f"expected two convolutions, got {block}")
    return first, second


def _with_layer_behind(stage: Stage, layer: nn.Module) -> Stage:
    if isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d):
        return replace(stage, norm=layer)
    if isinstance(layer, nn.PReLU) and layer.weight.numel() == 1:
        return replace(stage, slope=layer.weight)
    if isinstance(layer, nn.LeakyReLU):
        return replace(stage, slope=float(layer.negative_slope))
    if isinstance(layer, nn.ReLU):
        return replace(stage, slope=0.0)
    if isinstance(layer, nn.Tanh):
        return replace(stage, tanh=True)
    if isinstance(layer, nn.Identity):
        return stage
    raise ValueError(f"expected a layer of this project's networks, got {layer}")
