"""From slices of any size to their 2^n enlargements by G_A alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.statistics import Moments, pooled
from models.inference.device_copies import DeviceCopies
from models.inference.memory_plan import (
    OPENVINO_TRUNK_MAPS,
    TEXTURE_MAPS,
    TRUNK_MAPS,
    SliceMemory,
    bands_within,
    with_fewer_maps,
)
from models.inference.norm_scope import PixelWeights, scope_weights
from models.inference.openvino_trunk import OpenVinoTrunk, choose_backend
from models.inference.precision import fp32_convolutions, stored_type
from models.inference.slice_engine import NormSource, SliceEngine, Texture
from models.inference.slice_jobs import (
    Crop,
    SliceJob,
    crop_job,
    enlarge_in_tiles,
    grouped,
    receptive_radius,
)
from models.inference.turn import Turn
from models.networks import SRGenerator
from util.devices import free_memory
from util.errors import UserError

Result = TypeVar("Result")
_Running = Callable[[], "list[np.ndarray | None]"]

SMALLEST_EDGE = 4  # reflection padding by 3 needs one pixel more
GROUP_PIXELS = 128 * 128  # of small slices in one call: enough work for each operation's start
FREE_SHARE = 0.6  # of the free memory that one slice may take by default


class SliceResolver:
    """Applies G_A once to each slice, whole, in bounded memory, without seams.

    Instance norm takes its statistics from the slice, from a mask's pixels
    (models/inference/norm_scope.py) or, after `use_statistics`, from a whole volume; a generator
    without it has none to take. With `tile_size` each tile has its own, as in the published test,
    and intensities and seams depend on the tile.

    One resolver may serve several threads, which take turns; in another process, forked or spawned,
    it computes with scratch of its own.

    Args:
        generator: G_A, in evaluation mode.
        device: where to compute.
        precision: fp32 or bf16, on a GPU also tf32 or fp16 (models/inference/precision.py).
        tile_size: tile edge in input pixels, at least 4; None for the whole slice.
        backend: torch, openvino (the trunk on a CPU), or auto: openvino where it can serve.
        max_memory: bytes that a slice may take; None for a share of what is free now.
        compiled: compile the elementwise parts with torch.compile.
        cache_dir: for compiled OpenVINO models; None keeps none.
        texture: share of texture, 0 (the best estimate) to 1, for generators that have it.
        spread: factor on the spread of draws by which it tells how far the truth lies off.

    Attributes:
        scale: in-plane enlargement 2^n.
        max_memory: bytes that a slice may take. It decides which maps are computed anew, which
            changes values by rounding: what is to be equal to the last bit needs the same.
        memory: bytes that a slice takes.

    Raises:
        UserError: a backend, precision or texture that cannot be had here.
    """

    def __init__(
        self,
        generator: SRGenerator,
        device: torch.device,
        precision: str = "fp32",
        tile_size: int | None = None,
        backend: str = "torch",
        max_memory: int | None = None,
        compiled: bool = False,
        cache_dir: Path | None = None,
        texture: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        dtype = stored_type(precision, device)
        self.scale = generator.scale
        self.device = device
        self.precision = precision
        self.tile_size = tile_size
        self.backend = choose_backend(backend, device)
        self.engine = SliceEngine(generator, device, dtype, compiled)
        self.max_memory = max_memory or self.free_budget()
        bands = (self.engine.band_values, self.engine.recomputed_values)
        self.engine.band_values = bands_within(self.max_memory, *bands)
        self._trunk: OpenVinoTrunk | None = None
        if self.backend == "openvino":
            self._trunk = OpenVinoTrunk(generator, precision, cache_dir)
        self._statistics: Sequence[Moments] | None = None
        architecture = generator.architecture
        self._noises = int(architecture["texture"])
        self.texture, self.spread = texture, spread
        self.refuse_texture(texture)
        self._reach = receptive_radius(int(architecture["blocks"]), self.has_texture)
        self._has_statistics = architecture["norm"] == "instance"
        trunk_maps = TRUNK_MAPS
        if self._trunk is not None:
            trunk_maps = OPENVINO_TRUNK_MAPS + (TEXTURE_MAPS if self.has_texture else 0)
        self.memory = SliceMemory(
            int(architecture["ngf"]),
            int(architecture["sampling_times"]),
            dtype.itemsize,
            self.engine.recomputed_values,
            trunk_maps,
            self._noises,
        )
        self._copies = DeviceCopies(device)
        self._most_kept = self.memory.doublings  # maps of the tail
        self._turn = Turn()

    def refuse_texture(self, share: float) -> None:
        """Refuse a share of texture that cannot be given.

        Raises:
            UserError: says why.
        """
        if not 0 <= share <= 1:
            raise UserError(f"texture is {share:g}, expected 0 (the best estimate) to 1")
        if share and not self.has_texture:
            raise UserError(
                "this model has no texture layers, only its best estimate: take weights that have "
                "them (weights/sr_x8.safetensors), or leave texture out"
            )
        if share and self.tile_size is not None:
            raise UserError("tiles have no texture: enlarge whole slices, or leave texture out")

    @property
    def has_texture(self) -> bool:
        """Whether the generator can add texture."""
        return self._noises > 0

    def upscale_slice(
        self,
        image: np.ndarray,
        scope: np.ndarray | None = None,
        needed: np.ndarray | None = None,
        index: int = 0,
    ) -> np.ndarray:
        """Enlarge one slice; arguments as in `SliceJob`.

        Returns:
            float32 (rows * scale, columns * scale) in [-1, 1].

        Raises:
            UserError: the slice does not fit into the memory that it may take.
        """
        return self._start(SliceJob(image, scope, needed, index))()

    def upscale_slices(self, jobs: Iterable[SliceJob | None]) -> Iterator[np.ndarray | None]:
        """Enlarge slices one after the other; see `upscale_slice`. None gives None.

        Small slices without scope share a call (see `group_size`). On a GPU the next slices are
        started before the last ones' copy is waited for.
        """
        running: deque[_Running] = deque()
        ahead = 1 if self.device.type == "cuda" else 0
        for group in grouped(jobs, self.group_size):
            running.append(self._start_group(group))
            if len(running) > ahead:
                yield from running.popleft()()
        for finish in running:
            yield from finish()

    def upscale_draws(self, job: SliceJob, draws: int) -> Iterator[np.ndarray]:
        """Enlarge one slice with full texture, so many times with another one.

        What does not depend on the noise is computed once.

        Args:
            job: its draw and its share of texture are not looked at.
            draws: how many.

        Yields:
            Each draw, float32 (rows * scale, columns * scale) in [-1, 1].

        Raises:
            UserError: as `upscale_slice`, or there is no texture.
        """
        crop = crop_job(replace(job, scope=None), self._reach, False)
        images = self._upload(crop.job.image[None, None])
        features = self._features(images)
        rows, columns = crop.job.image.shape
        for draw in range(draws):
            drawn = replace(crop, job=replace(crop.job, draw=draw, texture=1.0))
            texture = self._texture_of([drawn])
            enlarged = self._enlarge(images, None, crop.rows, texture, features)[0, 0]
            copied = self._copies.start(enlarged[: rows * self.scale, : columns * self.scale])
            yield crop.paste(copied(), self.scale)

    def free_budget(self) -> int:
        """Bytes that a slice may take by default: a share of what is free or held for slices."""
        return int(FREE_SHARE * (free_memory(self.device) + self.engine.held_bytes()))

    def group_size(self, rows: int, columns: int) -> int:
        """How many slices of this size without scope share a call, if the memory is enough."""
        if self.tile_size is not None:
            return 1
        pixels = max(rows, SMALLEST_EDGE) * max(columns, SMALLEST_EDGE)
        count = max(1, GROUP_PIXELS // pixels)
        while count > 1 and self.memory.needed(count * pixels, 0) > self.max_memory:
            count //= 2
        return count

    def _start_group(self, group: list[SliceJob | None]) -> _Running:
        if group[0] is None:
            return lambda: [None]
        if len(group) == 1:
            finish = self._start(group[0])
            return lambda: [finish()]
        jobs = [job for job in group if job is not None]
        crops = [crop_job(job, self._reach, False) for job in jobs]
        copied = self._start_stack(np.stack([job.image for job in jobs]), self._texture_of(crops))
        return lambda: list(copied())

    def measure_slice(
        self, image: np.ndarray, scope: np.ndarray | None = None
    ) -> tuple[Moments, ...]:
        """Norm statistics of one slice, to be pooled over a volume; arguments as in `SliceJob`."""
        job = crop_job(SliceJob(image, scope, scope), self._reach, from_slice=scope is None).job
        norms = NormSource(self._weights(job.scope, job.image.shape))
        tensor = self._upload(job.image[None, None])

        def work(kept: int) -> None:
            norms.measured.clear()
            self.engine.measure_norms(tensor, norms, kept)

        with torch.inference_mode():
            self._within_memory(tensor, work)
        return tuple(norms.measured)

    def use_statistics(self, slices: Sequence[Sequence[Moments]] | None) -> None:
        """Take norm statistics from all of what `measure_slice` gave; None: each slice's own."""
        layers = zip(*(slices or []), strict=True)
        self._statistics = [pooled(layer) for layer in layers] if slices else None

    def _start(self, job: SliceJob) -> DeviceCopies.Pending:
        if self.tile_size is not None:
            self.refuse_texture(self._share_of(job))
            whole = enlarge_in_tiles(job.image, self.tile_size, self.scale, self._enlarge_alone)
            return lambda: whole
        measures = self._has_statistics and self._statistics is None
        if not measures:
            job = replace(job, scope=None)
        from_slice = measures and job.scope is None
        crop = crop_job(job, self._reach, from_slice)
        rows, columns = crop.job.image.shape
        weights = self._weights(crop.job.scope, (rows, columns))
        images, texture = self._upload(crop.job.image[None, None]), self._texture_of([crop])
        enlarged = self._enlarge(images, weights, crop.rows, texture)[0, 0]
        copied = self._copies.start(enlarged[: rows * self.scale, : columns * self.scale])
        return lambda: crop.paste(copied(), self.scale)

    def _enlarge_alone(self, image: np.ndarray) -> np.ndarray:
        return self._start_stack(image[None], None)()[0]

    def _start_stack(self, images: np.ndarray, texture: Texture | None) -> DeviceCopies.Pending:
        """Begin to enlarge (N, rows, columns), each slice with its own statistics."""
        rows, columns = images.shape[1:]
        enlarged = self._enlarge(self._upload(images[:, None]), None, None, texture)[:, 0]
        return self._copies.start(enlarged[:, : rows * self.scale, : columns * self.scale])

    def _upload(self, images: np.ndarray) -> Tensor:
        """(N, C, rows, columns) to the device, at least `SMALLEST_EDGE` wide and high."""
        below, right = (max(0, SMALLEST_EDGE - length) for length in images.shape[2:])
        # A copy: numpy leaves a mirrored side of one pixel its stride, which torch refuses.
        tensor = torch.from_numpy(np.array(images, dtype=np.float32, order="C"))
        return F.pad(self._copies.upload(tensor), (0, right, 0, below), mode="replicate")

    def _weights(self, scope: np.ndarray | None, shape: tuple[int, ...]) -> PixelWeights | None:
        if scope is None:
            return None
        below, right = (max(0, SMALLEST_EDGE - length) for length in shape)
        return scope_weights(np.pad(scope, ((0, below), (0, right))), self.device)

    def _texture_of(self, crops: Sequence[Crop]) -> Texture | None:
        """The texture of slices in one call, whose share is that of the first; None for none."""
        share = self._share_of(crops[0].job)
        self.refuse_texture(share)
        if share == 0:
            return None
        noise = np.stack([crop.noise(self._noises) for crop in crops])
        return Texture(self._upload(noise), share)

    def _share_of(self, job: SliceJob) -> float:
        return self.texture if job.texture is None else job.texture

    @torch.inference_mode()
    def _features(self, images: Tensor) -> Tensor:
        """What the trunk of a generator without norm makes of slices."""

        def work(kept: int) -> Tensor:
            if self._trunk is not None:
                return self._trunk(images, None).clone()
            return self.engine.features(images, NormSource()).clone()

        return self._within_memory(images, work)

    @torch.inference_mode()
    def _enlarge(
        self,
        images: Tensor,
        weights: PixelWeights | None,
        rows: tuple[int, int] | None,
        texture: Texture | None,
        given: Tensor | None = None,
    ) -> Tensor:
        def work(kept: int) -> Tensor:
            norms = NormSource(weights, self._statistics)
            features = given
            if given is None and self._trunk is not None and self._statistics is None:
                features = self._trunk(images, weights)
            return self.engine.enlarge(images, norms, kept, features, rows, texture)

        return self._within_memory(images, work)

    def _within_memory(self, images: Tensor, work: Callable[[int], Result]) -> Result:
        """Do work that uses the engine's maps, one thread at a time."""
        budget, (count, _, rows, columns) = self.max_memory, images.shape
        kept = self.memory.levels_to_keep(rows, columns, budget, count)
        kept = min(kept, self._most_kept)  # what has failed once would fail at each slice
        pixels = count * rows * columns
        arithmetic = fp32_convolutions(self.device, rounded=self.precision == "tf32")
        with self._turn, arithmetic, self._copies.in_order():
            if self.memory.needed(pixels, kept) + self.engine.idle_bytes(pixels, kept) > budget:
                self.engine.release()
            result, found = with_fewer_maps(work, kept, self.engine.release)
            if found < kept:
                self._most_kept = found
            return result
