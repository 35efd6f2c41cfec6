"""How much memory a slice takes in the inference engine, and which maps of its tail to keep."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from util.errors import UserError, is_out_of_memory
from util.progress import format_bytes

Result = TypeVar("Result")

TRUNK_MAPS = 3  # a residual block's input and its two convolutions
OPENVINO_TRUNK_MAPS = 5  # OpenVINO's own and the copy that the tail reads, as measured
TEXTURE_MAPS = 2  # that texture takes beside OpenVINO's; with torch it takes the trunk's
FLOAT_BYTES = 4
# Copies of a band in flight: padded rows, convolution, float32 values, deviations and one spare.
BAND_COPIES = 6
LEAST_BAND_VALUES = 1 << 16


@dataclass(frozen=True)
class SliceMemory:
    """Bytes that the engine holds for one call."""

    ngf: int  # channels of the trunk
    doublings: int  # n of the scale 2^n
    itemsize: int  # bytes of a stored value, 4 in fp32 and 2 in bf16
    band_values: int  # values of the highest band's map, see models/inference/slice_engine.py
    trunk_maps: int = TRUNK_MAPS  # maps of the trunk that are held at once
    noises: int = 0  # channels of the noise that texture is made of

    def needed(self, pixels: int, kept: int) -> int:
        """Bytes with the first `kept` maps of the tail in memory.

        Args:
            pixels: of the input slices of one call, N * H * W.
            kept: 0 to `doublings`.
        """
        trunk = self.trunk_maps * self.ngf * self.itemsize
        # Each doubling has twice the channels of its input and four times the pixels of the last.
        tail = sum(2 * self.ngf * 2**level * self.itemsize for level in range(kept))
        result = FLOAT_BYTES * 4**self.doublings
        bands = BAND_COPIES * FLOAT_BYTES * self.band_values
        noise = self.noises * (FLOAT_BYTES + self.itemsize)  # as drawn, and as it is computed with
        return pixels * (trunk + tail + result + noise) + bands

    def levels_to_keep(self, rows: int, columns: int, budget: int, count: int = 1) -> int:
        """Largest number of tail maps that fit into `budget` bytes.

        What is not kept is computed again, which costs time and changes values by rounding only.

        Raises:
            UserError: not even the trunk fits.
        """
        pixels = count * rows * columns
        for kept in range(self.doublings, -1, -1):
            if self.needed(pixels, kept) <= budget:
                return kept
        raise UserError(
            f"a slice of {columns}x{rows} pixels takes at least "
            f"{format_bytes(self.needed(pixels, 0))}, --max_memory or the free memory allows "
            f"{format_bytes(budget)}: allow more, use --precision bf16, or crop the volume"
        )


def bands_within(budget: int, band_values: int, highest: int) -> int:
    """Values of a band's map that leave most of a budget (bytes) to the maps.

    Args:
        budget: for all.
        band_values: at most so many.
        highest: values of the highest band for that many, which the plan counts; it shrinks alike.
    """
    factor = highest // band_values
    within = budget // (4 * BAND_COPIES * FLOAT_BYTES * factor)
    return max(LEAST_BAND_VALUES // factor, min(band_values, within))


def with_fewer_maps(
    work: Callable[[int], Result], kept: int, release: Callable[[], None]
) -> tuple[Result, int]:
    """Call `work(kept)`; when memory runs out all the same, again with one map fewer, down to 0.

    Args:
        work: computes a slice with so many maps of the tail kept.
        kept: the plan's number.
        release: gives memory back before the next try.

    Returns:
        What it made, and with how many maps.
    """
    while True:
        try:
            return work(kept), kept
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or kept == 0:
                raise
        # Here, not in the handler, where the error still holds the failed call's tensors.
        kept -= 1
        print(f"out of memory: trying again, maps of the tail kept: {kept}", file=sys.stderr)
        release()
