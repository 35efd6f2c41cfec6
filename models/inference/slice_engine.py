"""G_A on whole slices, band by band: the numbers of one forward pass in bounded memory.

Instance norm ties all pixels of a slice together, so a slice cannot be cut into tiles that run
through the network on their own. Here the network runs stage by stage instead: each convolution is
applied to all bands of rows, its statistics are gathered over them, and only then the next one
starts. Bands read their true neighbours from the map below them. The result does not depend on
the bands, and neither do seams: there are none.

A band is small enough to stay in the processor's cache from the norm of one stage to the
convolution of the next. Feature maps of the trunk have the size of the input and are kept. Those
of the upsampling tail are kept as far as memory allows; what has no room is convolved again in
each pass that needs it (see models/inference/memory_plan.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.fused.activation import INFERENCE_BAND_VALUES, channels_last
from models.fused.output_layer import EDGE
from models.fused.statistics import Moments, measure
from models.inference.levels import (
    Affine,
    BesideLevel,
    Level,
    RecomputedLevel,
    ShuffledLevel,
    StoredLevel,
    convolve_rows,
    norm_activate_rows,
)
from models.inference.norm_scope import PixelWeights
from models.inference.stages import PreparedStage, prepare_stages
from models.line_filters import beside_cubic
from models.networks import SRGenerator

GPU_BAND_VALUES = 1 << 26  # values of a band's map: a GPU wants few, large launches
# A band whose maps below are computed anew repeats their margins, so on a CPU it is taken higher.
RECOMPUTED_FACTOR = 8
GLIBC_LIMIT = (32 << 20) - (1 << 16)  # bytes; a block of 32 MB with its header is too large


@dataclass
class NormSource:
    """Where the instance norms of one run take their statistics from."""

    # pixels that count when statistics are measured; None for all
    weights: PixelWeights | None = None
    # statistics of each norm, in the network's order, instead of measured ones
    given: Sequence[Moments] | None = None
    # statistics that the run used, in the network's order
    measured: list[Moments] = field(default_factory=list)


@dataclass(frozen=True)
class Texture:
    """What is added to the best estimate (models/drawn_texture.py)."""

    noise: Tensor  # (N, channels, H, W) float32, standard normal
    share: float  # 0 to 1


class SliceEngine:
    """Runs an SR generator over slices of any size.

    Args:
        generator: G_A in evaluation mode.
        device: where to compute.
        dtype: type of convolutions and stored maps; norms and activations stay in float32.
        compiled: compile norm, activation and statistics with torch.compile.
    """

    def __init__(
        self,
        generator: SRGenerator,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        self.stages = prepare_stages(generator, device, dtype)
        self.scale = generator.scale
        self.device = device
        self.dtype = dtype
        self.band_values = GPU_BAND_VALUES if device.type == "cuda" else INFERENCE_BAND_VALUES
        self._norm_activate_rows: Callable[..., None] = norm_activate_rows
        self._measure: Callable[..., Moments] = measure
        if compiled:
            self._norm_activate_rows = torch.compile(norm_activate_rows, dynamic=True)
            self._measure = torch.compile(measure, dynamic=True)
        self._buffers: dict[str, Tensor] = {}
        if device.type == "cpu":
            keep_freed_memory()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_buffers": {}}  # scratch

    @property
    def recomputed_values(self) -> int:
        """Values of the map of a band whose maps below are computed anew, the highest bands."""
        return self.band_values * (RECOMPUTED_FACTOR if self.device.type == "cpu" else 1)

    def enlarge(
        self,
        images: Tensor,
        norms: NormSource,
        kept_levels: int,
        features: Tensor | None = None,
        rows: tuple[int, int] | None = None,
        texture: Texture | None = None,
    ) -> Tensor:
        """Enlarge slices of one size.

        Args:
            images: float32 (N, 1, H, W) in [-1, 1] on the engine's device, H and W at least 4.
            norms: what instance norms use; what they used is appended to `norms.measured`.
            kept_levels: how many maps of the tail are kept, see models/inference/memory_plan.py.
            features: (N, ngf, H, W), everything before the tail as `features` or another
                implementation computed it; None runs the stages.
            rows: input rows (first, last) that the caller wants; the others are left at 0.
            texture: what is added to the best estimate; None for nothing.

        Returns:
            float32 (N, 1, H * scale, W * scale) in [-1, 1].
        """
        level = self._levels(images, norms, kept_levels, features, texture)
        return self._output(level, images, rows or (0, images.shape[2]))

    def features(self, images: Tensor, norms: NormSource) -> Tensor:
        """Everything before the tail, (N, ngf, H, W), until the next slice; see `enlarge`."""
        self._size = images.shape
        return self._trunk(images, norms).read(0, images.shape[2])

    def measure_norms(self, images: Tensor, norms: NormSource, kept_levels: int) -> None:
        """Only fill `norms.measured`, without computing the image; arguments as for `enlarge`."""
        self._levels(images, norms, kept_levels, None, None)

    def _levels(
        self,
        images: Tensor,
        norms: NormSource,
        kept_levels: int,
        features: Tensor | None,
        texture: Texture | None,
    ) -> Level:
        """The last feature map, before the output convolution."""
        self._size = images.shape
        if features is None:
            trunk = self._trunk(images, norms)
        else:
            trunk = StoredLevel(channels_last(features.to(self.dtype)), None)
        level: Level = trunk if texture is None else self._textured(trunk, texture, norms)
        for index, stage in enumerate(self.stages.upsampling):
            source = ShuffledLevel(level) if stage.shuffled else level
            if index < kept_levels:
                level = self._store(stage, source, norms, f"tail{index}", factor=2**index)
            else:
                level = self._recompute(stage, source, norms, factor=2**index)
        return level

    def release(self) -> None:
        """Give the feature maps' memory back; the next slice allocates it again."""
        self._buffers.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def held_bytes(self) -> int:
        """Bytes of the feature maps that are kept for the next slice."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def idle_bytes(self, pixels: int, kept_levels: int) -> int:
        """Bytes among them that slices of `pixels` in all would have no use for."""
        used = {f"trunk{index}": self.stages.stem.channels for index in range(3)}
        for index, stage in enumerate(self.stages.upsampling[:kept_levels]):
            used[f"tail{index}"] = stage.channels * 4**index
        return sum(
            max(0, buffer.numel() - used.get(name, 0) * pixels) * buffer.itemsize
            for name, buffer in self._buffers.items()
        )

    def _trunk(self, images: Tensor, norms: NormSource) -> StoredLevel:
        image = StoredLevel(channels_last(images.to(self.dtype)), None)
        level = self._store(self.stages.stem, image, norms, "trunk0")
        # Three maps take turns: the block's input, its first and its second convolution. A map
        # is overwritten only after the sweep that reads it last.
        names = ["trunk0", "trunk1", "trunk2"]
        for first, second in self.stages.blocks:
            inner = self._store(first, level, norms, names[1])
            level = self._store(second, inner, norms, names[2], added=level)
            names = [names[2], names[1], names[0]]
        return self._store(self.stages.merge, level, norms, names[1])

    def _textured(self, trunk: StoredLevel, texture: Texture, norms: NormSource) -> StoredLevel:
        """The trunk's features with texture added to them; in the maps that the trunk left."""
        first, second, last = self.stages.texture
        share = texture.share
        last = replace(last, weight=last.weight * share, bias=last.bias * share)
        beside = BesideLevel(trunk, channels_last(texture.noise.to(self.dtype)))
        level = self._store(first, beside, norms, "trunk0")
        level = self._store(second, level, norms, "trunk2")
        return self._store(last, level, norms, "trunk0", added=trunk)

    def _store(
        self,
        stage: PreparedStage,
        source: Level,
        norms: NormSource,
        buffer: str,
        factor: int = 1,
        added: StoredLevel | None = None,
    ) -> StoredLevel:
        """Convolve a whole level into a buffer and gather its statistics on the way."""
        values = self._buffer(buffer, stage.channels, factor)
        affine = self._sweep(stage, source, norms, factor, values)
        return StoredLevel(values, partial(self._norm_activate, stage, affine, added))

    def _recompute(
        self, stage: PreparedStage, source: Level, norms: NormSource, factor: int
    ) -> RecomputedLevel:
        """Gather a level's statistics only; its rows are convolved again when they are read."""
        affine = self._sweep(stage, source, norms, factor, None)
        return RecomputedLevel(
            source.height,
            partial(_convolve, stage, source),
            partial(self._norm_activate, stage, affine, None),
        )

    def _norm_activate(
        self,
        stage: PreparedStage,
        affine: Affine | None,
        added: StoredLevel | None,
        raw: Tensor,
        first: int,
        last: int,
    ) -> None:
        block_input = None if added is None else added.read(first, last)
        self._norm_activate_rows(raw, affine, stage.slope, block_input)

    def _sweep(
        self,
        stage: PreparedStage,
        source: Level,
        norms: NormSource,
        factor: int,
        values: Tensor | None,
    ) -> Affine | None:
        """Apply a stage's convolution to all bands; returns its norm as scale and shift."""
        given = None if norms.given is None or stage.eps is None else norms.given
        moments = None if given is None else given[len(norms.measured)]
        measuring = stage.eps is not None and moments is None
        if measuring or values is not None:
            for first, last in self._bands(source.height, stage.channels, factor, values is None):
                raw = _convolve(stage, source, first, last)
                if values is not None:
                    values[:, :, first:last] = raw
                if measuring:
                    chosen = norms.weights
                    weights = None if chosen is None else chosen.rows(first, last, factor)
                    band = self._measure(raw, weights)
                    moments = band if moments is None else moments.joined(band)
        if stage.eps is None or moments is None:
            return stage.fixed
        norms.measured.append(moments)
        return moments.affine(stage.eps)

    def _output(self, level: Level, images: Tensor, rows: tuple[int, int]) -> Tensor:
        n, _, height, width = self._size
        scale = self.scale
        result = torch.zeros(n, 1, height * scale, width * scale, device=self.device)
        grid = scale // 2  # rows of the level for each row of the input
        # In pairs of the level's rows, of which one position of the kernel makes four of the image.
        start, stop = rows[0] * grid // 2, -(-rows[1] * grid // 2)
        again = isinstance(level, RecomputedLevel)
        channels = self.stages.upsampling[-1].channels
        for first, last in self._bands(stop - start, 2 * channels, grid, again):
            low, high = 2 * (start + first) - EDGE, 2 * (start + last) + EDGE
            above, below = max(0, -low), max(0, high - level.height)
            part = self.stages.output(level.read(low + above, high - below), above, below)
            top = (low + EDGE) * 2
            kept = min(part.shape[2], result.shape[2] - top)
            part = part[:, :, :kept, : result.shape[3]]
            if self.stages.skip:
                part = beside_cubic(part, images, scale, top).clamp_(-1, 1)
            result[:, :, top : top + kept] = part
        return result

    def _bands(
        self, height: int, channels: int, factor: int, again: bool
    ) -> Iterator[tuple[int, int]]:
        """Cut rows into bands (first, last) of about `band_values`, at least four rows each."""
        n, _, _, width = self._size
        budget = self.recomputed_values if again else self.band_values
        step = max(4, budget // (n * width * factor * channels))
        for first in range(0, height, step):
            yield first, min(first + step, height)

    def _buffer(self, name: str, channels: int, factor: int) -> Tensor:
        """A map (N, channels, H * factor, W * factor) in channels last with undefined content.

        Memory is kept from slice to slice: the system would otherwise clear fresh pages each time,
        which takes as long as several convolutions.
        """
        n, _, height, width = self._size
        numel = n * channels * height * width * factor**2
        flat = self._buffers.get(name)
        if flat is None or flat.numel() < numel:
            self._buffers.pop(name, None)
            del flat  # before the larger one is allocated
            flat = self._buffers[name] = torch.empty(numel, dtype=self.dtype, device=self.device)
        return flat[:numel].view(n, height * factor, width * factor, channels).permute(0, 3, 1, 2)


def _convolve(stage: PreparedStage, source: Level, first: int, last: int) -> Tensor:
    return convolve_rows(
        source, first, last, stage.weight, stage.bias, stage.padding, stage.reflect
    )


def keep_freed_memory() -> None:
    """Make the C library keep what is freed, instead of handing it to the system at once.

    Every band allocates and frees a few megabytes. glibc would return them each time, and the
    system clear fresh pages for the next band, which took a quarter of the engine's time. Freeing
    one large block raises its limit for doing so to the block's size (glibc's dynamic
    M_MMAP_THRESHOLD, at most 32 MB). Without effect elsewhere.
    """
    block = torch.empty(GLIBC_LIMIT, dtype=torch.uint8)
    del block
