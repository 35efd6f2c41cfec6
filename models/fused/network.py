"""The networks as training runs them: the same layers, with fused convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fused.bands import ConvolutionSettings
from models.fused.convolution import FusedConvolution, NormActivate
from models.fused.output_layer import BLOCK, unshuffled_kernel
from models.fused.statistics import widened
from models.networks import ResidualBlock, SRGenerator

OUTPUT_KERNEL = 7


@dataclass(frozen=True)
class Pending:
    """A map as a convolution left it, and what is still to be done to it.

    Attributes:
        values: (N, C, H, W).
        norm: instance norm as (scale, shift).
        slope: of the activation below zero.
        shuffled: whether PixelShuffle(2) comes next.
        reflect: rows and columns to mirror on each side.
    """

    values: Tensor
    norm: tuple[Tensor, Tensor] | None = None
    slope: Tensor | float | None = None
    shuffled: bool = False
    reflect: int = 0

    def norm_activate(self, added: Tensor | None = None) -> Tensor:
        """Norm and activation applied, `added` added."""
        if self.norm is None and self.slope is None and added is None:
            return self.values
        scale, shift = self.norm or (None, None)
        result: Tensor = NormActivate.apply(self.values, scale, shift, self.slope, added)
        return result


class FusedNetwork(nn.Module):
    """One of the project's networks with instance norm or none, run by `run_fused`.

    Args:
        network: its weights are used in place.
        dtype: of convolutions and kept maps.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 1, H, W) to what the network makes of it, in float32."""
        layers = self.network.model
        if not isinstance(layers, nn.Sequential):
            raise ValueError(f"expected a network of one sequence of layers, got {self.network}")
        output = run_fused(layers, images, self.dtype)
        if isinstance(self.network, SRGenerator):
            return self.network.joined(output, images)
        return output


def run_fused(layers: Iterable[nn.Module], images: Tensor, dtype: torch.dtype) -> Tensor:
    """Apply a network's layers with instance norm or none; the same numbers as the layers give.

    Args:
        layers: of `SRGenerator.model` and the like.
        images: (N, 1, H, W) float32.
        dtype: of convolutions and kept maps; norms are computed in float32.

    Returns:
        float32 (N, 1, h, w).
    """
    return widened(advance(layers, Pending(images), dtype).norm_activate())


def advance(layers: Iterable[nn.Module], pending: Pending, dtype: torch.dtype) -> Pending:
    """Take a map through layers, of which each convolution does what stands before it."""
    sequence = list(layers)
    for layer, following in zip(sequence, [*sequence[1:], None], strict=True):
        if isinstance(layer, nn.ReflectionPad2d):
            pending = replace(pending, reflect=layer.padding[0])
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            eps = following.eps if isinstance(following, nn.InstanceNorm2d) else None
            pending = convolve(pending, layer, dtype, eps)
        elif isinstance(layer, ResidualBlock):
            block_input = pending.norm_activate()
            inner = advance(layer.conv_block, Pending(block_input), dtype)
            pending = Pending(inner.norm_activate(block_input))
        elif isinstance(layer, nn.PixelShuffle):
            pending = replace(pending, shuffled=True)
        elif isinstance(layer, nn.PReLU):
            pending = replace(pending, slope=layer.weight)
        elif isinstance(layer, nn.LeakyReLU):
            pending = replace(pending, slope=float(layer.negative_slope))
        elif isinstance(layer, nn.ReLU):
            pending = replace(pending, slope=0.0)
        elif isinstance(layer, nn.Tanh):
            pending = Pending(torch.tanh(widened(pending.norm_activate())))
        elif not isinstance(layer, nn.InstanceNorm2d | nn.Identity):
            raise ValueError(f"expected a layer of this project's networks, got {layer}")
    return pending


def convolve(
    pending: Pending,
    layer: nn.Conv2d | nn.ConvTranspose2d,
    dtype: torch.dtype,
    eps: float | None,
) -> Pending:
    """Apply one convolution to what is pending before it; `eps` of the norm behind it or None."""
    weight, bias = layer.weight, layer.bias
    if bias is None:
        raise ValueError(f"expected a convolution with bias, got {layer}")
    transposed = isinstance(layer, nn.ConvTranspose2d)
    is_output = pending.shuffled and pending.reflect > 0
    if is_output:
        weight = torch.cat([weight.new_zeros(1), weight.flatten()])[taps(weight.shape[1])]
        bias = bias.repeat(BLOCK * BLOCK)
        geometry = ConvolutionSettings(stride=2, unshuffled=True)
    else:
        geometry = ConvolutionSettings(
            layer.stride[0],
            int(layer.padding[0]),
            pending.reflect,
            pending.shuffled,
            transposed=transposed,
            output_padding=int(layer.output_padding[0]) if transposed else 0,
        )
    scale, shift = pending.norm or (None, None)
    values, own_scale, own_shift = FusedConvolution.apply(
        pending.values, scale, shift, pending.slope, weight, bias, geometry, dtype, eps
    )
    if is_output:
        height, width = pending.values.shape[2:]
        return Pending(F.pixel_shuffle(values, BLOCK)[:, :, : 2 * height, : 2 * width])
    return Pending(values, None if eps is None else (own_scale, own_shift))


@lru_cache(maxsize=8)
def taps(channels: int) -> Tensor:
    """Which weight stands where in the output layer's unshuffled kernel.

    Returns:
        int64 (16, 4 * channels, 6, 6): 0 for no weight, else 1 + its index in (1, channels, 7, 7).
    """
    numbers = torch.arange(1, 1 + channels * OUTPUT_KERNEL**2)
    return unshuffled_kernel(numbers.view(1, channels, OUTPUT_KERNEL, OUTPUT_KERNEL))
