"""A convolution together with what stands before it, for training: one kept map instead of four.

Torch keeps for the backward pass what each layer of norm, activation, shuffle, padding and
convolution took in. All but the convolution are cheap, so here the map as the previous convolution
left it is kept alone, and the rest is computed again when gradients need it. Both directions run
over bands of rows that stay in the processor's cache, in channels last, the layout in which
convolutions are fast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.fused.activation import (
    TRAINING_BAND_VALUES,
    BehindActivation,
    channels_last,
    empty_map,
    known_slope,
    norm_activate,
    rows_at_once,
)
from models.fused.bands import (
    ConvolutionSettings,
    arguments,
    cut_into_bands,
    pad_rows,
    result_shape,
    unpad_gradient,
)
from models.fused.statistics import Moments, measure, widened


class FusedConvolution(torch.autograd.Function):
    """convolution(pad(shuffle(activation(norm(x))))), keeping x alone for the backward pass.

    `apply` takes
        x: (N, C, H, W) as the previous convolution left it.
        scale, shift: instance norm of x, (N, C, 1, 1) each, or None for no norm. They stand for
            the statistics of x: the gradient goes through them.
        slope: of the activation below zero: PReLU's parameter, a number, or None.
        weight, bias: float32, of the convolution.
        geometry: see `ConvolutionSettings`.
        dtype: of the convolution and of the result.
        eps: of an instance norm behind it, or None.
    and returns the result with the scale and shift of that norm (empty tensors without one), which
    carry no gradient: the next call's backward accounts for them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        slope: Tensor | float | None,
        weight: Tensor,
        bias: Tensor,
        geometry: ConvolutionSettings,
        dtype: torch.dtype,
        eps: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.geometry, ctx.dtype = geometry, dtype
        norm = save_for_backward(ctx, x, scale, shift, slope, weight)
        slope = known_slope(slope)
        kernel, offset = cast(weight, dtype), bias.to(dtype)
        shape = result_shape(x.shape, weight.shape, geometry)
        result = empty_map(shape, dtype, x.device)
        ctx.bands = cut_into_bands(x.shape, shape[2], geometry, TRAINING_BAND_VALUES)
        moments: Moments | None = None
        for band in ctx.bands:
            rows = norm_activate(x[:, :, band.low : band.high], norm, slope).to(dtype)
            read = channels_last(pad_rows(rows, band, geometry))
            values = torch.ops.aten.convolution(read, kernel, offset, *arguments(geometry))
            if len(ctx.bands) == 1:
                result = channels_last(values)
            else:
                result[:, :, band.first : band.last] = values
            if eps is not None:
                part = measure(values)
                moments = part if moments is None else moments.joined(part)
        if moments is None or eps is None:
            own_scale, own_shift = x.new_empty(0), x.new_empty(0)
        else:
            own_scale, own_shift = moments.affine(eps, widened(values).dtype)
        ctx.mark_non_differentiable(own_scale, own_shift)
        return result, own_scale, own_shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Any, ...]:
        x, norm, parameter, (weight,) = saved_for_backward(ctx)
        geometry, dtype, slope = ctx.geometry, ctx.dtype, known_slope(parameter)
        needs_x, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[4]
        kernel = cast(weight, dtype)
        weights = torch.zeros_like(weight) if needs_weight else None
        offsets = weight.new_zeros(len(gradient[0])) if needs_weight else None
        behind = BehindActivation(x, norm, parameter) if needs_x else None
        mask = [needs_x, needs_weight, needs_weight]
        for band in ctx.bands:
            rows = norm_activate(x[:, :, band.low : band.high], norm, slope).to(dtype)
            read = channels_last(pad_rows(rows, band, geometry))
            part = channels_last(gradient[:, :, band.first : band.last].to(dtype))
            to_read, to_weight, to_bias = torch.ops.aten.convolution_backward(
                part, read, kernel, [len(part[0])],
                *arguments(geometry), mask,
            )  # fmt: skip
            if weights is not None and offsets is not None:
                weights += to_weight
                offsets += to_bias
            if behind is not None:
                behind.add(
                    unpad_gradient(to_read, band, geometry, int(x.shape[3])), band.low, band.high
                )
        if behind is None:
            to_x, to_slope = None, None
        else:
            to_x, to_slope = behind.result()
        return to_x, None, None, to_slope, weights, offsets, None, None, None


class NormActivate(torch.autograd.Function):
    """activation(norm(x)) + added, keeping x alone; arguments as for `FusedConvolution`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        slope: Tensor | float | None,
        added: Tensor | None,
    ) -> Tensor:
        norm = save_for_backward(ctx, x, scale, shift, slope)
        result = empty_map(x.shape, x.dtype, x.device)
        step = rows_at_once(x)
        for first in range(0, int(x.shape[2]), step):
            rows = norm_activate(x[:, :, first : first + step], norm, known_slope(slope))
            if added is not None:
                rows = rows + added[:, :, first : first + step]
            result[:, :, first : first + step] = rows
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, norm, slope, _ = saved_for_backward(ctx)
        behind = BehindActivation(x, norm, slope)
        behind.add(gradient, 0, int(x.shape[2]))
        to_x, to_slope = behind.result()
        return to_x, None, None, to_slope, gradient if ctx.needs_input_grad[4] else None


def save_for_backward(
    ctx: Any,
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    slope: Tensor | float | None,
    *more: Tensor,
) -> tuple[Tensor, Tensor] | None:
    """Keep a raw map with its norm and slope for the backward pass; returns the norm as a pair."""
    ctx.slope = slope if isinstance(slope, float) else None
    ctx.save_for_backward(x, scale, shift, slope if isinstance(slope, Tensor) else None, *more)
    return None if scale is None or shift is None else (scale, shift)


def saved_for_backward(
    ctx: Any,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None, Tensor | float | None, list[Tensor]]:
    """What `save_for_backward` was given: raw map, norm, slope and the further tensors."""
    x, scale, shift, parameter, *more = ctx.saved_tensors
    norm = None if scale is None else (scale, shift)
    return x, norm, ctx.slope if parameter is None else parameter, more


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A kernel in the type and layout that the convolution computes in."""
    return weight.to(dtype).contiguous(memory_format=torch.channels_last)
