"""Feature maps as convolutions leave them: norm and activation on the way forward and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.statistics import widened

# Of a band's map on a CPU: what stays in the cache between norm, padding and convolution. Training
# is as fast with half of it and slower beyond; inference, which holds a few maps at once, is
# fastest with half (docs/training.md and docs/inference.md measure).
TRAINING_BAND_VALUES = 1 << 20
INFERENCE_BAND_VALUES = 1 << 19


def norm_activate(rows: Tensor, norm: tuple[Tensor, Tensor] | None, slope: float | None) -> Tensor:
    """Norm as (scale, shift) and activation of rows (N, C, h, W), in float32.

    A view of the rows where there is nothing to do. `slope` is that of the activation below zero;
    None for no activation.
    """
    if norm is None:
        values = widened(rows) if slope is None else widened(rows).clone()
    else:
        values = torch.addcmul(norm[1], widened(rows), norm[0])
    return values if slope is None else F.leaky_relu_(values, slope)


def known_slope(slope: Tensor | float | None) -> float | None:
    """PReLU's parameter as a number; any number on torch's meta device, where it has no value."""
    if isinstance(slope, Tensor):
        return 0.0 if slope.is_meta else float(slope)
    return slope


def through_activation(
    gradient: Tensor,
    x: Tensor,
    norm: tuple[Tensor, Tensor] | None,
    slope: float | None,
    trained: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the gradient of finished rows through the activation, in place.

    Args:
        gradient: (N, C, h, W), of the rows behind norm and activation.
        x: raw rows.
        norm, slope: see `norm_activate`.
        trained: whether the slope is a parameter.

    Returns:
        What the norm and the slope need, each summed over these rows: the gradient and its
        product with the normalised values, (N, C, 1, 1), and the slope's own gradient; float64.
    """
    given = widened(gradient)
    values = norm_activate(x, norm, None)
    to_slope = (given * values.clamp(max=0)).sum() if trained else values.new_zeros(())
    if slope is not None:
        given = torch.ops.aten.leaky_relu_backward(given, values, slope, False)
    gradient.copy_(given)
    total, product = (part.sum((2, 3), keepdim=True) for part in (given, given * values))
    return total.double(), product.double(), to_slope.double()


class BehindActivation:
    """Carries the gradient of a finished map back through activation and norm to the raw map.

    Bands of rows come in from top to bottom and may overlap. A row is taken through the
    activation once no later band can add to it, while it is in the cache; what an instance norm
    subtracts is known only at the end.

    Args:
        x: raw map.
        norm, slope: see `norm_activate`.
    """

    def __init__(
        self, x: Tensor, norm: tuple[Tensor, Tensor] | None, slope: Tensor | float | None
    ) -> None:
        self._x, self._norm, self._slope = x, norm, known_slope(slope)
        self._parameter = slope if isinstance(slope, Tensor) else None
        self._gradient = empty_map(x.shape, x.dtype, x.device)
        self._reached = self._done = 0
        self._step = rows_at_once(x)
        self._sum = self._product = x.new_zeros((), dtype=torch.float64)
        self._to_slope = x.new_zeros((), dtype=torch.float64)

    def add(self, rows: Tensor, low: int, high: int) -> None:
        """Add the gradient of rows low <= row < high of the finished map."""
        self._take_through(min(low, self._reached))
        overlap = max(0, self._reached - low)
        if overlap:
            self._gradient[:, :, low : low + overlap] += rows[:, :, :overlap]
        self._gradient[:, :, low + overlap : high] = rows[:, :, overlap:]
        self._reached = high

    def _take_through(self, last: int) -> None:
        """Take rows up to `last` through the activation, and sum what the norm needs."""
        if self._norm is not None or self._slope is not None:
            for first in range(self._done, last, self._step):
                self._take_rows(first, min(first + self._step, last))
        self._done = max(self._done, last)

    def _take_rows(self, first: int, last: int) -> None:
        target = self._gradient[:, :, first:last]
        sums = through_activation(
            target, self._x[:, :, first:last], self._norm, self._slope, self._parameter is not None
        )
        self._sum, self._product, self._to_slope = (
            before + here
            for before, here in zip((self._sum, self._product, self._to_slope), sums, strict=True)
        )

    def result(self) -> tuple[Tensor, Tensor | None]:
        """Gradients of the raw map and of PReLU's parameter (None where there is none)."""
        height, width = self._x.shape[2:]
        self._take_through(height)
        to_slope = None
        if self._parameter is not None:
            to_slope = self._to_slope.to(self._parameter.dtype).view_as(self._parameter)
        if self._norm is None:
            return self._gradient, to_slope
        # With y = x * scale + shift: scale * (g - mean(g) - y * mean(g * y)), in three constants.
        scale, shift = (part.double() for part in self._norm)
        mean, product = self._sum / (height * width), self._product / (height * width)
        of_x = (-scale * scale * product).to(self._norm[0].dtype)
        constant = (-scale * (mean + shift * product)).to(self._norm[0].dtype)
        for first in range(0, height, self._step):
            target = self._gradient[:, :, first : first + self._step]
            rows = torch.addcmul(constant, widened(self._x[:, :, first : first + self._step]), of_x)
            target.copy_(rows.addcmul_(target, self._norm[0]))
        return self._gradient, to_slope


def rows_at_once(values: Tensor) -> int:
    """How many rows of a map (N, C, H, W) make a band."""
    return max(1, TRAINING_BAND_VALUES * int(values.shape[2]) // values.numel())


def channels_last(values: Tensor) -> Tensor:
    """The same values in channels last, without a copy where they are."""
    return values.contiguous(memory_format=torch.channels_last)


def empty_map(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A feature map in channels last with undefined content."""
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
