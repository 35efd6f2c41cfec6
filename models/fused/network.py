"""The networks as training runs them: the same layers, with fused convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fused.bands import ConvolutionSettings
from models.fused.convolution import FusedConvolution, NormActivate
from models.fused.output_layer import BLOCK, unshuffled_kernel
from models.fused.statistics import widened
from models.networks import SRGenerator
from models.stages import Stage, read_stages
from util.devices import has_bf16

OUTPUT_KERNEL = 7


@dataclass(frozen=True)
class Pending:
    """A map as a convolution left it, and the norm and activation still to be applied to it."""

    values: Tensor  # (N, C, H, W)
    norm: tuple[Tensor, Tensor] | None = None  # instance norm as (scale, shift)
    slope: Tensor | float | None = None  # of the activation below zero

    def norm_activate(self, added: Tensor | None = None) -> Tensor:
        """Norm and activation applied, `added` added."""
        if self.norm is None and self.slope is None and added is None:
            return self.values
        scale, shift = self.norm or (None, None)
        result: Tensor = NormActivate.apply(self.values, scale, shift, self.slope, added)
        return result


def fused_network(
    network: nn.Module, dtype: torch.dtype, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """What runs a network on this device faster than its layers do; None where nothing does.

    Args:
        network: its weights are used in place.
        dtype: of convolutions and of the maps between them.
        device: on a GPU Triton is needed, and a card that it and bf16 serve (Ampere or later).
    """
    if device.type != "cuda":
        return FusedNetwork(network, dtype)
    if find_spec("triton") is None or not has_bf16(device):
        return None
    from models.fused.gpu_network import GpuNetwork

    return GpuNetwork(network, dtype)


class FusedNetwork:
    """One of the project's networks with instance norm or none, run by `run_fused`.

    Args:
        network: its weights are used in place.
        dtype: of convolutions and kept maps.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.network, self.dtype = network, dtype

    def __call__(self, images: Tensor) -> Tensor:
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
    pending = Pending(images)
    for stage in read_stages(layers):
        if isinstance(stage, Stage):
            pending = run_stage(stage, pending, dtype)
        else:
            block_input = pending.norm_activate()
            inner = Pending(block_input)
            for half in stage:
                inner = run_stage(half, inner, dtype)
            pending = Pending(inner.norm_activate(block_input))
    return widened(pending.norm_activate())


def run_stage(stage: Stage, pending: Pending, dtype: torch.dtype) -> Pending:
    """Apply a stage's convolution to what is pending before it; its norm and activation stay so."""
    if isinstance(stage.norm, nn.BatchNorm2d):
        raise ValueError(f"expected instance norm or none, got {stage.norm}")
    eps = None if stage.norm is None else stage.norm.eps
    if stage.shuffled and stage.reflect:
        result = run_output_layer(stage, pending, dtype)
    else:
        layer = stage.convolution
        transposed = isinstance(layer, nn.ConvTranspose2d)
        settings = ConvolutionSettings(
            layer.stride[0],
            int(layer.padding[0]),
            stage.reflect,
            stage.shuffled,
            transposed=transposed,
            output_padding=int(layer.output_padding[0]) if transposed else 0,
        )
        result = convolve(pending, layer.weight, stage.bias, settings, dtype, eps)
    result = replace(result, slope=stage.slope)
    return Pending(torch.tanh(widened(result.norm_activate()))) if stage.tanh else result


def run_output_layer(stage: Stage, pending: Pending, dtype: torch.dtype) -> Pending:
    """SRGenerator's last convolution, taken on the map before its shuffle.

    With S the pixel shuffle by 2, the layer is W * pad(S(x)), a 7x7 kernel W on twice the rows and
    columns. S only moves values, so the same sum is S4(K * pad'(x)): K has the 49 weights of W in
    each of 16 channels, shifted by their pixel of a 4 x 4 block, and S4 lays the 16 results side by
    side (models/fused/output_layer.py has K and pad'). K is gathered from W here, so that its
    gradient goes back to W: weight t of W, counted from 1, stands wherever `taps` says t, and 0
    where it says 0.
    """
    weight = stage.convolution.weight
    kernel = torch.cat([weight.new_zeros(1), weight.flatten()])[
        taps(weight.shape[1], weight.device)
    ]
    settings = ConvolutionSettings(stride=2, unshuffled=True)
    bias = stage.bias.repeat(BLOCK * BLOCK)
    blocks = convolve(pending, kernel, bias, settings, dtype, None).values
    height, width = pending.values.shape[2:]
    return Pending(F.pixel_shuffle(blocks, BLOCK)[:, :, : 2 * height, : 2 * width])


def convolve(
    pending: Pending,
    weight: Tensor,
    bias: Tensor,
    settings: ConvolutionSettings,
    dtype: torch.dtype,
    eps: float | None,
) -> Pending:
    """One convolution together with what is pending before it; `eps` of the norm behind it."""
    scale, shift = pending.norm or (None, None)
    values, own_scale, own_shift = FusedConvolution.apply(
        pending.values, scale, shift, pending.slope, weight, bias, settings, dtype, eps
    )
    return Pending(values, None if eps is None else (own_scale, own_shift))


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # training may be the next to ask
def taps(channels: int, device: torch.device) -> Tensor:
    """Which weight stands where in the output layer's unshuffled kernel.

    Kept on the device: an index that comes from the host would make a GPU wait.

    Returns:
        int64 (16, 4 * channels, 6, 6): 0 for no weight, else 1 + its index in (1, channels, 7, 7).
    """
    numbers = torch.arange(1, 1 + channels * OUTPUT_KERNEL**2, device=device)
    return unshuffled_kernel(numbers.view(1, channels, OUTPUT_KERNEL, OUTPUT_KERNEL))
