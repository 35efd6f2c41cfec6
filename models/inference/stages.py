"""The SR generator read as a list of stages: one convolution each, with what follows it.

`SRGenerator.model` is one flat `nn.Sequential`, since its indices are the state-dict contract.
The inference engine works band by band and needs the same layers grouped: padding, convolution,
norm, activation. Only layers of `SRGenerator` are understood; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fused.output_layer import OutputConvolution
from models.networks import ResidualBlock, SRGenerator


@dataclass(frozen=True)
class Stage:
    """One convolution of the generator with its padding, norm and activation.

    Attributes:
        weight, bias: of the convolution, in the type it is computed in.
        padding: rows and columns added on each side.
        reflect: whether they mirror the image; else they are zero.
        shuffled: whether its input first goes through PixelShuffle(2).
        eps: of the instance norm behind the convolution; None where there is none.
        fixed: (scale, shift) of a batch norm in evaluation, (1, C, 1, 1) float32 each.
        slope: of the activation below zero: 0 is a ReLU, None no activation.
    """

    weight: Tensor
    bias: Tensor
    padding: int
    reflect: bool
    shuffled: bool
    eps: float | None
    fixed: tuple[Tensor, Tensor] | None
    slope: float | None

    @property
    def channels(self) -> int:
        """Channels of its output."""
        return int(self.weight.shape[0])


@dataclass(frozen=True)
class Stages:
    """All stages of an SR generator, in their order.

    Attributes:
        stem: 7x7 convolution from the image.
        blocks: the two convolutions of each residual block.
        merge: 3x3 convolution behind the blocks, the end of the trunk.
        upsampling: one stage a doubling.
        output: the last 7x7 convolution, with tanh or without.
        skip: whether the cubic enlargement of the input is added to the output.
    """

    stem: Stage
    blocks: list[tuple[Stage, Stage]]
    merge: Stage
    upsampling: list[Stage]
    output: OutputConvolution
    skip: bool

    def in_order(self) -> Iterator[Stage]:
        """Every stage but the output, first to last."""
        yield self.stem
        for pair in self.blocks:
            yield from pair
        yield self.merge
        yield from self.upsampling


def read_stages(
    generator: SRGenerator,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Stages:
    """Group the layers of `generator` and copy its weights for computing.

    Args:
        generator: in evaluation mode; not changed.
        device: where the stages' weights shall lie.
        dtype: type of the convolutions; norms stay in float32.
        memory_format: of the weights.
    """
    layers = list(generator.model)
    times = int(generator.architecture["sampling_times"])

    def convolution(part: nn.Module) -> tuple[Tensor, Tensor]:
        if not isinstance(part, nn.Conv2d) or part.bias is None:
            raise ValueError(f"expected a convolution with bias, got {part}")
        weight = part.weight.detach().to(device, dtype).contiguous(memory_format=memory_format)
        return weight, part.bias.detach().to(device, dtype)

    def stage(
        conv: nn.Module,
        norm: nn.Module,
        activation: nn.Module | None,
        reflect: bool = True,
        shuffled: bool = False,
    ) -> Stage:
        weight, bias = convolution(conv)
        return Stage(
            weight,
            bias,
            padding=int(weight.shape[2]) // 2,
            reflect=reflect,
            shuffled=shuffled,
            eps=norm.eps if isinstance(norm, nn.InstanceNorm2d) else None,
            fixed=_fixed_norm(norm, device),
            slope=_slope(activation),
        )

    blocks = [layer.conv_block for layer in layers if isinstance(layer, ResidualBlock)]
    merge = 4 + len(blocks)  # index of the reflection pad behind the blocks
    first_up = merge + 4
    upsampling = []
    for step in range(times):
        conv, norm, _shuffle, activation = layers[first_up + 4 * step : first_up + 4 * step + 4]
        upsampling.append(stage(conv, norm, activation, reflect=False, shuffled=step > 0))
    return Stages(
        stem=stage(layers[1], layers[2], layers[3]),
        blocks=[(stage(b[1], b[2], b[3]), stage(b[5], b[6], None)) for b in blocks],
        merge=stage(layers[merge + 1], layers[merge + 2], layers[merge + 3]),
        upsampling=upsampling,
        output=OutputConvolution(
            *convolution(layers[-2]), memory_format, tanh=isinstance(layers[-1], nn.Tanh)
        ),
        skip=generator.has_skip,
    )


def _slope(activation: nn.Module | None) -> float | None:
    if activation is None:
        return None
    if isinstance(activation, nn.PReLU) and activation.weight.numel() == 1:
        return float(activation.weight.detach())
    if isinstance(activation, nn.ReLU):
        return 0.0
    raise ValueError(f"expected ReLU or PReLU with one parameter, got {activation}")


def _fixed_norm(norm: nn.Module, device: torch.device) -> tuple[Tensor, Tensor] | None:
    if isinstance(norm, nn.InstanceNorm2d | nn.Identity):
        return None
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        raise ValueError(f"expected instance, batch or no norm, got {norm}")
    if norm.running_var is None:
        raise ValueError(f"{norm} keeps no running variance")
    scale = norm.weight.detach().double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.detach().double() - norm.running_mean.double() * scale
    scale, shift = (part.float().to(device).view(1, -1, 1, 1) for part in (scale, shift))
    return scale, shift
