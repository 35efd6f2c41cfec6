"""Triton kernels for all that stands between two convolutions, in channels last.

Norm, activation, residual sum, pixel shuffle and reflection padding move every value once instead
of once each. A map (N, C, H, W) in channels last is read as rows of C values, one a pixel; sums
over the pixels of an image are gathered piece by piece and joined in a fixed order, so that the
same input gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECES = 512  # of an image, each summed by one program
TILE = 2048  # values that a program holds at once
BLOCK = 1024  # values of a program that sums nothing

NO_SLOPE, GIVEN_SLOPE, TRAINED_SLOPE = 0, 1, 2


@triton.jit
def _normed(
    x, scale, shift, bias, per_image, c, mask, HAS_NORM: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """Values as float32 behind the norm, or with the convolution's bias where there is none."""
    value = x.to(tl.float32)
    if HAS_NORM:
        a = tl.load(scale + per_image + c, mask=mask, other=0.0)
        b = tl.load(shift + per_image + c, mask=mask, other=0.0)
        value = value * a + b
    if HAS_BIAS:
        value = value + tl.load(bias + c, mask=mask, other=0.0).to(tl.float32)
    return value


@triton.jit
def _mirrored(position, size):
    """The row (or column) of the map that a row of the padded map shows."""
    position = tl.where(position < 0, -position, position)
    return tl.where(position >= size, 2 * (size - 1) - position, position)


@triton.jit
def forward_kernel(
    x, scale, shift, bias, slope, slope_value, added, whole, read,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    SHUFFLED: tl.constexpr, EDGE: tl.constexpr, HAS_NORM: tl.constexpr, HAS_BIAS: tl.constexpr,
    SLOPE: tl.constexpr, HAS_ADDED: tl.constexpr, HAS_WHOLE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Values of the padded map, and of the map itself (`whole`) where the next stages need it."""
    F: tl.constexpr = 2 if SHUFFLED else 1
    CR: tl.constexpr = C // (F * F)
    HR: tl.constexpr = H * F + 2 * EDGE
    WR: tl.constexpr = W * F + 2 * EDGE
    image = tl.program_id(1)
    start = image.to(tl.int64) * (H * W * C)
    index = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    mask = index < HR * WR * CR
    channel = index % CR
    pixel = index // CR
    row = _mirrored(pixel // WR - EDGE, H * F)
    column = _mirrored(pixel % WR - EDGE, W * F)
    if SHUFFLED:
        channel = channel * 4 + (row % 2) * 2 + column % 2
        row = row // 2
        column = column // 2
    place = (row * W + column) * C + channel
    raw = tl.load(x + start + place, mask=mask, other=0.0)
    value = _normed(raw, scale, shift, bias, image * C, channel, mask, HAS_NORM, HAS_BIAS)
    if SLOPE == 1:
        value = tl.where(value > 0, value, value * slope_value)
    if SLOPE == 2:
        value = tl.where(value > 0, value, value * tl.load(slope).to(tl.float32))
    if HAS_ADDED:
        value += tl.load(added + start + place, mask=mask, other=0.0).to(tl.float32)
    result = value.to(read.dtype.element_ty)
    tl.store(read + image.to(tl.int64) * (HR * WR * CR) + index, result, mask=mask)
    if HAS_WHOLE:
        inside = (pixel // WR >= EDGE) & (pixel // WR < H + EDGE)
        inside = inside & (pixel % WR >= EDGE) & (pixel % WR < W + EDGE)
        tl.store(whole + start + place, result, mask=mask & inside)


@triton.jit
def statistics_kernel(
    x, means, deviations, counts,
    PIXELS: tl.constexpr, C: tl.constexpr, CB: tl.constexpr, ROWS: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """Count, mean and squared deviation of each channel in one piece of an image."""
    piece, image = tl.program_id(0), tl.program_id(1)
    pieces = tl.num_programs(0)
    start = image.to(tl.int64) * (PIXELS * C)
    c = tl.arange(0, CB)
    mean = tl.zeros([CB], tl.float32)
    deviation = tl.zeros([CB], tl.float32)
    count = 0.0
    for turn in range(ROUNDS):
        pixel = (piece * ROUNDS + turn) * ROWS + tl.arange(0, ROWS)
        mask = (pixel < PIXELS)[:, None] & (c < C)[None, :]
        place = pixel[:, None] * C + c[None, :]
        values = tl.load(x + start + place, mask=mask, other=0.0).to(tl.float32)
        here = tl.sum((pixel < PIXELS).to(tl.float32), axis=0)
        mine = tl.sum(values, axis=0) / tl.maximum(here, 1.0)
        off = tl.where(mask, values - mine[None, :], 0.0)
        both = tl.maximum(count + here, 1.0)
        step = mine - mean
        # Chan, Golub and LeVeque (1979), as in models/fused/statistics.py.
        deviation += tl.sum(off * off, axis=0) + step * step * (count * here / both)
        mean += step * (here / both)
        count += here
    to = (image * pieces + piece) * C + c
    tl.store(means + to, mean, mask=c < C)
    tl.store(deviations + to, deviation, mask=c < C)
    tl.store(counts + image * pieces + piece, count)


@triton.jit
def join_kernel(
    means, deviations, counts, scale, shift, eps,
    C: tl.constexpr, COUNT: tl.constexpr, PIXELS: tl.constexpr, PB: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """Instance norm as scale and shift, from the statistics of an image's pieces."""
    image = tl.program_id(0)
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    piece = tl.arange(0, PB)
    mask = (piece < COUNT)[:, None] & (c < C)[None, :]
    place = (image * COUNT + piece)[:, None] * C + c[None, :]
    mean_of = tl.load(means + place, mask=mask, other=0.0)
    count_of = tl.load(counts + image * COUNT + piece, mask=piece < COUNT, other=0.0)[:, None]
    mean = tl.sum(mean_of * count_of, axis=0) / PIXELS
    step = tl.where(mask, mean_of - mean[None, :], 0.0)
    deviation_of = tl.load(deviations + place, mask=mask, other=0.0)
    variance = tl.sum(deviation_of + step * step * count_of, axis=0) / PIXELS
    factor = 1.0 / tl.sqrt(variance + eps)
    tl.store(scale + image * C + c, factor, mask=c < C)
    tl.store(shift + image * C + c, -mean * factor, mask=c < C)


@triton.jit
def _gathered(
    gradient, row, column, channel, mask,
    HS: tl.constexpr, WS: tl.constexpr, CR: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Sum of the padded map's gradient over the columns that show a value, in one of its rows."""
    WR: tl.constexpr = WS + 2 * EDGE
    place = (row * WR + column + EDGE) * CR + channel
    total = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
    if EDGE > 0:
        left = mask & (column >= 1) & (column <= EDGE)
        place = (row * WR + EDGE - column) * CR + channel
        total += tl.load(gradient + place, mask=left, other=0.0).to(tl.float32)
        right = mask & (column >= WS - 1 - EDGE) & (column <= WS - 2)
        place = (row * WR + EDGE + 2 * (WS - 1) - column) * CR + channel
        total += tl.load(gradient + place, mask=right, other=0.0).to(tl.float32)
    return total


@triton.jit
def backward_kernel(
    x, scale, shift, bias, slope, slope_value, of_read, of_whole, to_x, to_added,
    sums, products, to_slope,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
    SHUFFLED: tl.constexpr, EDGE: tl.constexpr, HAS_NORM: tl.constexpr, HAS_BIAS: tl.constexpr,
    SLOPE: tl.constexpr, HAS_ADDED: tl.constexpr, HAS_WHOLE: tl.constexpr,
    ROWS: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """Gradient in front of the activation, and what norm, bias and slope need of one piece."""
    F: tl.constexpr = 2 if SHUFFLED else 1
    HS: tl.constexpr = H * F
    WS: tl.constexpr = W * F
    CR: tl.constexpr = C // (F * F)
    piece, image = tl.program_id(0), tl.program_id(1)
    start = image.to(tl.int64) * (H * W * C)
    gradient = of_read + image.to(tl.int64) * ((HS + 2 * EDGE) * (WS + 2 * EDGE) * CR)
    c = tl.arange(0, CB)
    total = tl.zeros([CB], tl.float32)
    product = tl.zeros([CB], tl.float32)
    below = tl.zeros([CB], tl.float32)
    for turn in range(ROUNDS):
        first = (piece * ROUNDS + turn) * ROWS
        pixel = first + tl.arange(0, ROWS)
        mask = (pixel < H * W)[:, None] & (c < C)[None, :]
        row = (pixel // W)[:, None] + tl.zeros([1, CB], tl.int32)
        column = (pixel % W)[:, None] + tl.zeros([1, CB], tl.int32)
        channel = tl.zeros([ROWS, 1], tl.int32) + c[None, :]
        if SHUFFLED:
            row = row * 2 + (channel // 2) % 2
            column = column * 2 + channel % 2
            channel = channel // 4
        g = _gathered(gradient, row + EDGE, column, channel, mask, HS, WS, CR, EDGE)
        if EDGE > 0:
            if first // W * F <= EDGE:
                top = mask & (row >= 1) & (row <= EDGE)
                g += _gathered(gradient, EDGE - row, column, channel, top, HS, WS, CR, EDGE)
            if ((first + ROWS - 1) // W + 1) * F - 1 >= HS - 1 - EDGE:
                bottom = mask & (row >= HS - 1 - EDGE) & (row <= HS - 2)
                mirror = EDGE + 2 * (HS - 1) - row
                g += _gathered(gradient, mirror, column, channel, bottom, HS, WS, CR, EDGE)
        place = pixel[:, None] * C + c[None, :]
        if HAS_WHOLE:
            g += tl.load(of_whole + start + place, mask=mask, other=0.0).to(tl.float32)
        if HAS_ADDED:
            tl.store(to_added + start + place, g.to(to_added.dtype.element_ty), mask=mask)
        raw = tl.load(x + start + place, mask=mask, other=0.0)
        channels = tl.zeros([ROWS, 1], tl.int32) + c[None, :]
        value = _normed(raw, scale, shift, bias, image * C, channels, mask, HAS_NORM, HAS_BIAS)
        if SLOPE == 1:
            g = tl.where(value > 0, g, g * slope_value)
        if SLOPE == 2:
            below += tl.sum(g * tl.minimum(value, 0.0), axis=0)
            g = tl.where(value > 0, g, g * tl.load(slope).to(tl.float32))
        tl.store(to_x + start + place, g.to(to_x.dtype.element_ty), mask=mask)
        total += tl.sum(g, axis=0)
        if HAS_NORM:
            product += tl.sum(tl.where(mask, g * value, 0.0), axis=0)
    to = (image * tl.num_programs(0) + piece) * C + c
    tl.store(sums + to, total, mask=c < C)
    if HAS_NORM:
        tl.store(products + to, product, mask=c < C)
    if SLOPE == 2:
        tl.store(to_slope + to, below, mask=c < C)


@triton.jit
def norm_backward_kernel(
    x, scale, shift, means, products, gradient,
    PIXELS: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """scale * (g - mean(g) - y * mean(g * y)) with y the normed value, in place of g."""
    image = tl.program_id(1)
    start = image.to(tl.int64) * (PIXELS * C)
    index = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    mask = index < PIXELS * C
    c = image * C + index % C
    a = tl.load(scale + c, mask=mask, other=0.0)
    y = tl.load(x + start + index, mask=mask, other=0.0).to(tl.float32) * a
    y += tl.load(shift + c, mask=mask, other=0.0)
    g = tl.load(gradient + start + index, mask=mask, other=0.0).to(tl.float32)
    mean = tl.load(means + c, mask=mask, other=0.0)
    product = tl.load(products + c, mask=mask, other=0.0)
    g = a * (g - mean - y * product)
    tl.store(gradient + start + index, g.to(gradient.dtype.element_ty), mask=mask)


class Pieces:
    """How an image's pixels are shared among programs: each holds `rows` at once, `rounds` times.

    Args:
        pixels, channels: of an image.
    """

    def __init__(self, pixels: int, channels: int) -> None:
        self.block = triton.next_power_of_2(channels)
        self.rows = max(1, TILE // self.block)
        tiles = triton.cdiv(pixels, self.rows)
        self.rounds = triton.next_power_of_2(triton.cdiv(tiles, PIECES))
        self.count = triton.cdiv(tiles, self.rounds)


def measure_norm(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Instance norm of a map (N, C, H, W) in channels last as scale and shift, (N, C) float32."""
    count, channels, height, width = x.shape
    pieces = Pieces(height * width, channels)
    means = x.new_empty(2, count, pieces.count, channels, dtype=torch.float32)
    counts = x.new_empty(count, pieces.count, dtype=torch.float32)
    scale = x.new_empty(2, count, channels, dtype=torch.float32)
    statistics_kernel[(pieces.count, count)](
        x, means[0], means[1], counts,
        height * width, channels, pieces.block, pieces.rows, pieces.rounds,
    )  # fmt: skip
    block = min(pieces.block, 16)
    join_kernel[(count, triton.cdiv(channels, block))](
        means[0], means[1], counts, scale[0], scale[1], eps,
        channels, pieces.count, height * width, triton.next_power_of_2(pieces.count), block,
    )  # fmt: skip
    return scale[0], scale[1]
