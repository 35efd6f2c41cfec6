"""The last layer, reflection pad 3 + 7x7 convolution + tanh, without shuffling before it.

G_A shuffles its last feature map to full size and then applies a 7x7 convolution with one output
channel, which no processor does well: a single output leaves most of each vector register idle.
PixelShuffle only moves values, so the same sum can be taken on the unshuffled map. There a 6x6
convolution with stride 2 gives sixteen output pixels (4 x 4 of the image) at once. Its kernel
holds the 7x7 weights sixteen times, shifted, with zeros between: three times the arithmetic, in a
tenth of the time (docs/inference.md has the measurement).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 4  # output rows and columns that one position of the kernel gives
EDGE = 2  # rows of the unshuffled map that the kernel needs beyond each side
KERNEL = 6


class OutputConvolution:
    """Maps rows of the unshuffled last feature map (N, 4c, G, W) to image rows.

    Args:
        weight: (1, c, 7, 7) of the published layer.
        bias: (1,).
        tanh: whether tanh ends the network; then values lie in [-1, 1].
    """

    def __init__(self, weight: Tensor, bias: Tensor, tanh: bool = True) -> None:
        self.kernel = unshuffled_kernel(weight).contiguous(memory_format=torch.channels_last)
        self.bias = bias.repeat(BLOCK * BLOCK)
        self.tanh = tanh

    def __call__(self, rows: Tensor, above: int, below: int) -> Tensor:
        """Compute an image band.

        Args:
            rows: (N, 4c, R, W), rows of the map with `EDGE` further ones on each side, save
                where the map ends.
            above, below: rows missing at the top and bottom, since the map ends there: 0 to
                `EDGE` (one more below where the map has an odd number of rows). Mirrored rows
                are put in their place.

        Returns:
            float32 (N, 1, 2 * (R + above + below - 2 * EDGE), 2 * W); an odd number of
            columns or rows gives two image columns or rows too many, to be cut by the caller.
        """
        right = EDGE + rows.shape[3] % 2
        padded = pad_unshuffled(pad_unshuffled(rows, 2, above, below), 3, EDGE, right)
        values = F.conv2d(padded, self.kernel, self.bias, stride=2)
        values = values.float()
        return F.pixel_shuffle(values.tanh_() if self.tanh else values, BLOCK)


def unshuffled_kernel(weight: Tensor) -> Tensor:
    """7x7 kernel (1, c, 7, 7) on the full grid -> (16, 4c, 6, 6) on the unshuffled grid, stride 2.

    Output pixel r of a block of four sees full-grid rows r - 3 to r + 3. Kernel row k and phase i
    hold the full-grid row 2k + i - 4 of the block, so the weight there is number 2k + i - 1 - r.
    """
    channels = weight.shape[1]
    kernel = weight.new_zeros(BLOCK, BLOCK, channels, 2, 2, KERNEL, KERNEL)
    size = weight.shape[2]
    taps = [
        (out, phase, k, 2 * k + phase - 1 - out)
        for out in range(BLOCK)
        for phase in range(2)
        for k in range(KERNEL)
        if 0 <= 2 * k + phase - 1 - out < size
    ]
    for row, i, k, u in taps:
        for column, j, m, v in taps:
            kernel[row, column, :, i, j, k, m] = weight[0, :, u, v]
    return kernel.reshape(BLOCK * BLOCK, 4 * channels, KERNEL, KERNEL)


def pad_unshuffled(rows: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Pad an unshuffled map so that its shuffled image is mirrored without repeating the edge.

    Args:
        rows: (N, 4c, H, W) whose channels hold c x (row phase) x (column phase).
        dim: 2 pads rows, 3 columns; at least 2 of them unless nothing is padded.
        before, after: how many, 0 to `EDGE`, after up to `EDGE` + 1.

    Returns:
        The padded map. Of the outermost blocks only the phase that a 7x7 kernel reaches is
        mirrored; the other holds the same finite values, on which the kernel is zero.
    """
    if not before and not after:
        return rows
    shape = list(rows.shape)
    shape[dim] += before + after
    padded = torch.empty(
        shape, dtype=rows.dtype, device=rows.device, memory_format=torch.channels_last
    )
    padded.narrow(dim, before, rows.shape[dim]).copy_(rows)
    for target, source in _mirrored(padded, dim, before, after):
        target.copy_(source)
    return padded


def unpad_unshuffled(gradient: Tensor, dim: int, before: int, after: int) -> Tensor:
    """The adjoint of `pad_unshuffled`: from the padded map's gradient, changed in place."""
    for padding, source in _mirrored(gradient, dim, before, after):
        source.add_(padding)
    return gradient.narrow(dim, before, gradient.shape[dim] - before - after)


def _mirrored(padded: Tensor, dim: int, before: int, after: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of one padding row (or column) of a padded map, and of the one that it mirrors."""
    length = padded.shape[dim] - before - after
    # Image rows -1, -2, -3 mirror 1, 2, 3; beyond the end, n, n + 1, n + 2 mirror n - 2, ...
    for block in (*range(-before, 0), *range(length, length + after)):
        for phase in range(2):
            pixel = 2 * block + phase
            mirrored = -pixel if block < 0 else 2 * (2 * length - 1) - pixel
            # An outermost phase, which the kernel does not see, may lie outside a tiny map.
            mirrored = min(max(mirrored, 0), 2 * length - 1)
            yield (
                _phase(padded, dim, phase).select(dim + 1, block + before),
                _phase(padded, dim, mirrored % 2).select(dim + 1, mirrored // 2 + before),
            )


def _phase(rows: Tensor, dim: int, phase: int) -> Tensor:
    """Channels of one row phase (dim 2) or column phase (dim 3): a view (N, c, 2, H, W).

    PixelShuffle counts channels as c * 4 + row phase * 2 + column phase.
    """
    n, channels, height, width = rows.shape
    return rows.view(n, channels // 4, 2, 2, height, width).select(dim, phase)
