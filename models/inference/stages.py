"""The SR generator's stages with their weights as the inference engine computes with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fused.activation import channels_last
from models.fused.output_layer import OutputConvolution
from models.networks import SRGenerator
from models.stages import Residual, Stage, read_residual, read_stage, read_stages


@dataclass(frozen=True)
class PreparedStage:
    """One convolution of the generator with its padding, norm and activation."""

    # weight, bias: of the convolution, in the type it is computed in
    weight: Tensor
    bias: Tensor
    padding: int  # rows and columns added on each side
    reflect: bool  # whether they mirror the image; else they are zero
    shuffled: bool  # whether its input first goes through PixelShuffle(2)
    eps: float | None  # of the instance norm behind the convolution; None where there is none
    # (scale, shift) of a batch norm in evaluation, (1, C, 1, 1) float32 each
    fixed: tuple[Tensor, Tensor] | None
    slope: float | None  # of the activation below zero: 0 is a ReLU, None no activation

    @property
    def channels(self) -> int:
        """Channels of its output."""
        return int(self.weight.shape[0])


@dataclass(frozen=True)
class PreparedStages:
    """All stages of an SR generator, in their order."""

    stem: PreparedStage  # 7x7 convolution from the image
    blocks: list[tuple[PreparedStage, PreparedStage]]  # the two convolutions of each residual block
    merge: PreparedStage  # 3x3 convolution behind the blocks, the end of the trunk
    upsampling: list[PreparedStage]  # one stage a doubling
    output: OutputConvolution  # the last 7x7 convolution, with tanh or without
    skip: bool  # whether the cubic enlargement of the input is added to the output
    texture: list[PreparedStage]  # the convolutions that make texture of noise; empty without


def prepare_stages(
    generator: SRGenerator, device: torch.device, dtype: torch.dtype
) -> PreparedStages:
    """Copy the weights of `generator` in channels last for computing, stage by stage.

    Args:
        generator: in evaluation mode; not changed.
        device: where the stages' weights shall lie.
        dtype: type of the convolutions; norms stay in float32.
    """

    def convolution(stage: Stage) -> tuple[Tensor, Tensor]:
        weight = stage.convolution.weight.detach().to(device, dtype)
        return channels_last(weight), stage.bias.detach().to(device, dtype)

    def prepared(stage: Stage | Residual) -> PreparedStage:
        if not isinstance(stage, Stage):
            raise ValueError("expected a convolution, got a residual block")
        weight, bias = convolution(stage)
        slope = stage.slope
        return PreparedStage(
            weight,
            bias,
            padding=int(weight.shape[2]) // 2,
            reflect=stage.reflect > 0,
            shuffled=stage.shuffled,
            eps=stage.norm.eps if isinstance(stage.norm, nn.InstanceNorm2d) else None,
            fixed=_fixed_norm(stage.norm, device),
            slope=float(slope.detach()) if isinstance(slope, Tensor) else slope,
        )

    pairs = [read_residual(block) for block in generator.blocks]
    output = read_stage(generator.output)
    return PreparedStages(
        stem=prepared(read_stage(generator.stem)),
        blocks=[(prepared(first), prepared(second)) for first, second in pairs],
        merge=prepared(read_stage(generator.merge)),
        upsampling=[prepared(stage) for stage in read_stages(generator.upsampling)],
        output=OutputConvolution(*convolution(output), tanh=output.tanh),
        skip=generator.has_skip,
        texture=[prepared(stage) for stage in read_stages(generator.texture or [])],
    )


def _fixed_norm(norm: nn.Module | None, device: torch.device) -> tuple[Tensor, Tensor] | None:
    if not isinstance(norm, nn.BatchNorm2d):
        return None
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"expected a batch norm with running statistics, got {norm}")
    scale = norm.weight.detach().double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.detach().double() - norm.running_mean.double() * scale
    scale, shift = (part.float().to(device).view(1, -1, 1, 1) for part in (scale, shift))
    return scale, shift
