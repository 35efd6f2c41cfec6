"""From slices of any size to their 2^n enlargements by G_A alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.checkpoints.checkpoint import load_generator
from models.fused.statistics import Moments, pooled
from models.inference.device_copies import DeviceCopies, exact_convolutions
from models.inference.memory_plan import (
    OPENVINO_TRUNK_MAPS,
    TRUNK_MAPS,
    SliceMemory,
    bands_within,
    with_fewer_maps,
)
from models.inference.norm_scope import PixelWeights, scope_weights
from models.inference.openvino_trunk import OpenVinoTrunk, choose_backend
from models.inference.slice_engine import NormSource, SliceEngine
from models.inference.slice_jobs import (
    SliceJob,
    crop_job,
    enlarge_in_tiles,
    grouped,
    receptive_radius,
    refuse_unfit,
)
from models.networks import SRGenerator
from util.devices import free_memory
from util.errors import UserError
from util.images.intensity_window import IntensityWindow

Result = TypeVar("Result")
_Running = Callable[[], "list[np.ndarray | None]"]

SMALLEST_EDGE = 4  # reflection padding by 3 needs one pixel more
GROUP_PIXELS = 128 * 128  # of small slices in one call: enough work for each operation's start
FREE_SHARE = 0.6  # of the free memory that one slice may take by default
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class SuperResolver:
    """Applies G_A once to each slice, whole, in bounded memory, without seams.

    Instance norm takes its statistics from the slice, from a mask's pixels
    (models/inference/norm_scope.py) or, after `use_statistics`, from a whole volume; a generator
    without it has none to take. With `tile_size` each tile has its own, as in the published test,
    and intensities and seams depend on the tile.

    Args:
        generator: G_A, in evaluation mode.
        device: where to compute.
        precision: fp32, or bf16 for convolutions and feature maps (norms stay in fp32).
        tile_size: tile edge in input pixels, at least 4; None for the whole slice.
        backend: torch, openvino (the trunk on a CPU), or auto: openvino where it can serve.
        max_memory: bytes that a slice may take; None for a share of what is free now.
        compiled: compile the elementwise parts with torch.compile.
        cache_dir: for compiled OpenVINO models; None keeps none.

    Attributes:
        scale: in-plane enlargement 2^n.
        window: HU mapped to [-1, 1], where `from_checkpoint` found one.
        max_memory: bytes that a slice may take. It decides which maps are computed anew, which
            changes values by rounding: what is to be equal to the last bit needs the same.
        memory: bytes that a slice takes.

    Raises:
        UserError: a backend that cannot serve here.
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
    ) -> None:
        dtype = PRECISIONS[precision]
        self.scale = generator.scale
        self.window: IntensityWindow | None = None
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
        self._reach = receptive_radius(int(architecture["blocks"]))
        self._has_statistics = architecture["norm"] == "instance"
        self.memory = SliceMemory(
            int(architecture["ngf"]),
            int(architecture["sampling_times"]),
            dtype.itemsize,
            self.engine.recomputed_values,
            TRUNK_MAPS if self._trunk is None else OPENVINO_TRUNK_MAPS,
        )
        self._copies = DeviceCopies(device)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device | None = None, **settings: Any
    ) -> SuperResolver:
        """Load G_A with its intensity window, for use from Python; see `upscale`.

        Args:
            path: checkpoint of train.py, or a bare state dict of G_A (it brings no window).
            device: where to compute; None takes the first GPU, else the CPU.
            settings: the class's further arguments.

        Raises:
            UserError: the file is missing or holds no SR generator.
        """
        loaded = load_generator(Path(path))
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        resolver = cls(loaded.generator, torch.device(device), **settings)
        if loaded.windows is not None and loaded.windows["normalization"] == "window":
            resolver.window = IntensityWindow.from_dict(loaded.windows["clinical"])
        return resolver

    def upscale(
        self,
        volume: np.ndarray,
        mask: np.ndarray | None = None,
        window: IntensityWindow | None = None,
    ) -> np.ndarray:
        """Enlarge a volume in memory, in HU.

        `upscale_slices` gives one slice at a time; medicaltest.py writes files with geometry.

        Args:
            volume: (slices, rows, columns) in HU, any real type, or a single slice of it.
            mask: lung mask of the same shape. Norm statistics then come from the lung, as models
                of unpaired training know them, and slices without lung stay at the
                window's low end.
            window: HU mapped to [-1, 1]; None takes the checkpoint's.

        Returns:
            float32 (slices, rows * scale, columns * scale) in HU, within the window.

        Raises:
            UserError: no window is known, the shapes do not fit, or a voxel is NaN or infinite.
        """
        chosen = window or self.window
        if chosen is None:
            raise UserError(
                "these weights state no fixed intensity window: give "
                "window=IntensityWindow(low, high)"
            )
        refuse_unfit(volume, mask)
        slices = volume[None] if volume.ndim == 2 else volume
        masks = None if mask is None else mask.reshape(slices.shape)
        count, rows, columns = slices.shape
        result = np.full(
            (count, rows * self.scale, columns * self.scale), chosen.low, dtype=np.float32
        )
        jobs = (
            None
            if masks is not None and not masks[i].any()
            else SliceJob(chosen.to_unit(slices[i]), None if masks is None else masks[i])
            for i in range(count)
        )
        for index, unit in enumerate(self.upscale_slices(jobs)):
            if unit is not None:
                result[index] = chosen.to_physical(unit)
        return result[0] if volume.ndim == 2 else result

    def upscale_slice(
        self,
        image: np.ndarray,
        scope: np.ndarray | None = None,
        needed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Enlarge one slice; arguments as in `SliceJob`.

        Returns:
            float32 (rows * scale, columns * scale) in [-1, 1].

        Raises:
            UserError: the slice does not fit into the memory that it may take.
        """
        return self._start(SliceJob(image, scope, needed))()

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

    def free_budget(self) -> int:
        """Bytes that a slice may take by default: a share of what is free or held for slices."""
        return int(FREE_SHARE * (free_memory(self.device) + self.engine.held_bytes()))

    def group_size(self, rows: int, columns: int) -> int:
        """How many slices of this size without scope share a call."""
        return 1 if self.tile_size is not None else max(1, GROUP_PIXELS // (rows * columns))

    def _start_group(self, group: list[SliceJob | None]) -> _Running:
        if group[0] is None:
            return lambda: [None]
        if len(group) == 1:
            finish = self._start(group[0])
            return lambda: [finish()]
        copied = self._start_stack(np.stack([job.image for job in group if job is not None]))
        return lambda: list(copied())

    def measure_slice(
        self, image: np.ndarray, scope: np.ndarray | None = None
    ) -> tuple[Moments, ...]:
        """Norm statistics of one slice, to be pooled over a volume; arguments as in `SliceJob`."""
        job = crop_job(SliceJob(image, scope, scope), self._reach, from_slice=scope is None).job
        norms = NormSource(self._weights(job.scope, job.image.shape))
        tensor = self._upload(job.image[None])

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
            whole = enlarge_in_tiles(job.image, self.tile_size, self.scale, self._enlarge_alone)
            return lambda: whole
        measures = self._has_statistics and self._statistics is None
        if not measures:
            job = replace(job, scope=None)
        from_slice = measures and job.scope is None
        crop = crop_job(job, self._reach, from_slice)
        rows, columns = crop.job.image.shape
        weights = self._weights(crop.job.scope, (rows, columns))
        enlarged = self._enlarge(self._upload(crop.job.image[None]), weights, crop.rows)[0, 0]
        copied = self._copies.start(enlarged[: rows * self.scale, : columns * self.scale])
        return lambda: crop.paste(copied(), self.scale)

    def _enlarge_alone(self, image: np.ndarray) -> np.ndarray:
        return self._start_stack(image[None])()[0]

    def _start_stack(self, images: np.ndarray) -> DeviceCopies.Pending:
        """Begin to enlarge (N, rows, columns), each slice with its own statistics."""
        rows, columns = images.shape[1:]
        enlarged = self._enlarge(self._upload(images), None, None)[:, 0]
        return self._copies.start(enlarged[:, : rows * self.scale, : columns * self.scale])

    def _upload(self, images: np.ndarray) -> Tensor:
        """(N, rows, columns) to the device, at least `SMALLEST_EDGE` wide and high."""
        below, right = (max(0, SMALLEST_EDGE - length) for length in images.shape[1:])
        tensor = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))[:, None]
        return F.pad(self._copies.upload(tensor), (0, right, 0, below), mode="replicate")

    def _weights(self, scope: np.ndarray | None, shape: tuple[int, ...]) -> PixelWeights | None:
        if scope is None:
            return None
        below, right = (max(0, SMALLEST_EDGE - length) for length in shape)
        return scope_weights(np.pad(scope, ((0, below), (0, right))), self.device)

    @torch.inference_mode()
    def _enlarge(
        self, images: Tensor, weights: PixelWeights | None, rows: tuple[int, int] | None
    ) -> Tensor:
        def work(kept: int) -> Tensor:
            norms = NormSource(weights, self._statistics)
            features = None
            if self._trunk is not None and self._statistics is None:
                features = self._trunk(images, weights)
            return self.engine.enlarge(images, norms, kept, features, rows)

        return self._within_memory(images, work)

    def _within_memory(self, images: Tensor, work: Callable[[int], Result]) -> Result:
        budget, (count, _, rows, columns) = self.max_memory, images.shape
        kept = self.memory.levels_to_keep(rows, columns, budget, count)
        pixels = count * rows * columns
        if self.memory.needed(pixels, kept) + self.engine.idle_bytes(pixels, kept) > budget:
            self.engine.release()
        with exact_convolutions():
            return with_fewer_maps(work, kept, self.engine.release)
