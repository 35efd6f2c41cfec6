"""The networks on a GPU: torch's convolutions, and one kernel for all that stands between two.

A training step of torch's layers spends most of its time on norms, activations, paddings and copies
between memory formats (docs/training.md). Here maps stay in channels last and are moved once in
each direction, see models/fused/gpu_kernels.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.fused.activation import channels_last, empty_map
from models.fused.gpu_kernels import (
    BLOCK,
    GIVEN_SLOPE,
    NO_SLOPE,
    TRAINED_SLOPE,
    Pieces,
    backward_kernel,
    forward_kernel,
    measure_norm,
    norm_backward_kernel,
)
from models.networks import SRGenerator
from models.stages import Stage, read_stages


class Between(torch.autograd.Function):
    """pad(shuffle(activation(norm(x)) + added)), for the next convolution.

    `apply` takes
        x: (N, C, H, W) in channels last, as a convolution without its bias left it.
        added: what a residual block adds, of the same shape, or None.
        slope: of the activation below zero: PReLU's parameter, a number, or None.
        bias: of the convolution, (C,), or None where an instance norm takes it away again.
        eps: of the instance norm, or None for no norm.
        shuffled: whether PixelShuffle(2) comes before the padding.
        edge: rows and columns mirrored on each side.
        keep: whether the map itself is needed too, as a residual block's input.
    and returns the padded map, and the map itself or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        added: Tensor | None,
        slope: Tensor | float | None,
        bias: Tensor | None,
        eps: float | None,
        shuffled: bool,
        edge: int,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        x = channels_last(x)
        added = None if added is None else channels_last(added)
        scale, shift = (None, None) if eps is None else measure_norm(x, eps)
        count, channels, height, width = x.shape
        times = 2 if shuffled else 1
        padded = (height * times + 2 * edge, width * times + 2 * edge)
        read = empty_map((count, channels // times**2, *padded), x.dtype, x.device)
        whole = empty_map(tuple(x.shape), x.dtype, x.device) if keep else None
        ctx.shuffled, ctx.edge, ctx.eps = shuffled, edge, eps
        parameter = slope if isinstance(slope, Tensor) else None
        ctx.kind = TRAINED_SLOPE if parameter is not None else GIVEN_SLOPE
        ctx.slope = 0.0 if slope is None or parameter is not None else float(slope)
        if slope is None:
            ctx.kind = NO_SLOPE
        ctx.save_for_backward(x, scale, shift, parameter, bias)
        grid = (triton.cdiv(read[0].numel(), BLOCK), count)
        forward_kernel[grid](
            x, scale, shift, bias, parameter, ctx.slope, added, whole, read,
            height, width, channels, shuffled, edge, eps is not None, bias is not None,
            ctx.kind, added is not None, keep, BLOCK,
        )  # fmt: skip
        return read, whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_read: Tensor, of_whole: Tensor | None) -> tuple[Any, ...]:
        x, scale, shift, parameter, bias = ctx.saved_tensors
        count, channels, height, width = x.shape
        pieces = Pieces(height * width, channels)
        of_read = channels_last(of_read)
        of_whole = None if of_whole is None else channels_last(of_whole)
        has_norm, needs_added = scale is not None, ctx.needs_input_grad[1]
        to_x = torch.empty_like(x)
        to_added = torch.empty_like(x) if needs_added else None
        parts = x.new_empty(3, count, pieces.count, channels, dtype=torch.float32)
        backward_kernel[(pieces.count, count)](
            x, scale, shift, bias, parameter, ctx.slope, of_read, of_whole, to_x, to_added,
            parts[0], parts[1], parts[2],
            height, width, channels, pieces.block, ctx.shuffled, ctx.edge, has_norm,
            bias is not None, ctx.kind, needs_added, of_whole is not None,
            pieces.rows, pieces.rounds,
        )  # fmt: skip
        to_slope = to_bias = None
        if parameter is not None:
            to_slope = parts[2].sum().to(parameter.dtype).view_as(parameter)
        if has_norm:
            means = parts[:2].sum(2) / (height * width)
            norm_backward_kernel[(triton.cdiv(x[0].numel(), BLOCK), count)](
                x, scale, shift, means[0], means[1], to_x, height * width, channels, BLOCK
            )
        elif bias is not None:
            to_bias = parts[0].sum((0, 1)).to(bias.dtype)
        return to_x, to_added, to_slope, to_bias, None, None, None, None


class GpuNetwork:
    """Runs one of the project's networks with instance norm or none.

    Args:
        network: its weights are used in place.
        dtype: of convolutions and of the maps between them; norms are computed in float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        layers = network.model
        if not isinstance(layers, nn.Sequential):
            raise ValueError(f"expected a network of one sequence of layers, got {network}")
        self.network, self.dtype, self.stages = network, dtype, read_stages(layers)

    def __call__(self, images: Tensor) -> Tensor:
        """float32 (N, 1, H, W) to what the network makes of it, in float32."""
        inputs = [stage if isinstance(stage, Stage) else stage[0] for stage in self.stages]
        edge = inputs[0].reflect
        padded = mirrored(images, edge) if edge else images
        read, whole = channels_last(padded.to(self.dtype)), None
        values: Tensor = read
        for number, stage in enumerate(self.stages):
            following = inputs[number + 1] if number + 1 < len(inputs) else None
            keeps = following is not None and not isinstance(self.stages[number + 1], Stage)
            if isinstance(stage, Stage):
                values, last, added = convolved(stage, read), stage, None
            else:
                first, last = stage
                inner, _ = met(convolved(first, read), first, None, last, keep=False)
                values, added = convolved(last, inner), whole
            if following is not None:
                read, whole = met(values, last, added, following, keeps)
        # The networks' last convolution has neither norm nor activation, that of a part may have.
        output = (values + last.bias.view(1, -1, 1, 1)).float()
        if last.slope is not None:
            output = torch.where(output < 0, output * last.slope, output)
        output = torch.tanh(output) if last.tanh else output
        if isinstance(self.network, SRGenerator):
            return self.network.joined(output, images)
        return output


def mirrored(images: Tensor, edge: int) -> Tensor:
    """Images with `edge` rows and columns mirrored on each side.

    Of copies, whose backward pass adds in one order, which that of torch's own padding does not.
    """
    for line in (2, 3):
        length = images.shape[line]
        before = images.narrow(line, 1, edge).flip(line)
        behind = images.narrow(line, length - 1 - edge, edge).flip(line)
        images = torch.cat([before, images, behind], dim=line)
    return images


def convolved(stage: Stage, read: Tensor) -> Tensor:
    """A stage's convolution without its bias."""
    layer = stage.convolution
    weight = layer.weight.to(read.dtype, memory_format=torch.channels_last)
    if isinstance(layer, nn.ConvTranspose2d):
        return F.conv_transpose2d(
            read, weight, None, layer.stride, (int(layer.padding[0]),) * 2, layer.output_padding
        )
    return F.conv2d(read, weight, None, layer.stride, (int(layer.padding[0]),) * 2)


def met(
    values: Tensor, before: Stage, added: Tensor | None, after: Stage, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """What stands between the convolutions of two stages; see `Between`."""
    eps = None if before.norm is None else before.norm.eps
    bias = before.bias if before.norm is None else None
    result: tuple[Tensor, Tensor | None] = Between.apply(
        values, added, before.slope, bias, eps, after.shuffled, after.reflect, keep
    )
    return result
