"""What the patch datasets share: their settings, patches drawn from one volume, shrunk, flipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import Dataset

from data.sampling import PatchPositions, Rule, item_generator
from data.training_data import TrainingData
from data.volumes.volume import Volume
from data.windows import IntensityWindow
from util.errors import UserError
from util.images.resampling import area_average, resize

Degradation = Literal["area", "zoom"]
DEGRADATIONS: tuple[Degradation, ...] = ("area", "zoom")

# Of [-1, 1]: 7.5 HU in the default window, below the noise of any clinical CT.
CONSTANT_PATCH_NOISE = 0.01

Item = dict[str, torch.Tensor]
Sampling = Literal["by_volume", "by_size"]

SQUARE_TOLERANCE = 0.02  # relative; headers round voxel sizes


def shrink(image: np.ndarray, scale: int, method: Degradation = "area") -> np.ndarray:
    """Shrink an image `scale` times in both directions.

    Args:
        image: float32 (rows, columns), any unit; both sizes divisible by `scale`.
        scale: 2^n.
        method: "area" is the mean over scale x scale blocks: the pixel grid of the loss's P
            (average pooling), so image corners stay in place. "zoom" is the published cubic
            `scipy.ndimage.zoom` without a filter, kept for comparison: it aliases, drifts by up
            to (scale - 1) / 2 pixels of `image` towards its edges, and may overshoot the range
            or leave the last row and column at 0.

    Returns:
        float32 (rows / scale, columns / scale).

    Raises:
        UserError: a size that is not a multiple of `scale`, or an unknown method.
    """
    rows, columns = image.shape
    if rows % scale or columns % scale:
        raise UserError(
            f"an image of {columns}x{rows} pixels cannot be shrunk {scale} times: "
            f"give sizes that are multiples of {scale}"
        )
    if method == "area":
        return area_average(image, scale)
    if method == "zoom":
        return ndimage.zoom(image, 1.0 / scale, order=3).astype(np.float32, copy=False)
    raise UserError(f"degradation {method!r} is not known: give one of {', '.join(DEGRADATIONS)}")


@dataclass(frozen=True)
class PatchSettings:
    """How patches are drawn."""

    # clinical_patch_size, micro_patch_size: edges in pixels
    clinical_patch_size: int
    micro_patch_size: int
    scale: int  # 2^n
    patches_per_volume: int  # patches an epoch for each clinical volume
    seed: int  # of every draw
    micro_mix: float  # share of shrunk micro patches among the clinical inputs
    degradation: Degradation  # how they are shrunk
    flip: bool  # mirror patches at random
    serial: bool  # pair by index, as published
    fresh: bool  # new patches in every epoch
    max_size: int | None  # items an epoch at the most; None for no limit
    sampling: Sampling  # how often each volume is taken
    match_spacing: bool  # resample micro-CT to the clinical voxel size / scale
    # smallest and largest edge that micro patches are read with, in patch edges, before they are
    # resampled: clinical pixels of other sizes
    zoom: tuple[float, float] = (1.0, 1.0)
    # thinnest and thickest slab that micro patches are the average of, in thicknesses of clinical
    # slices; (0, 0) for one micro slice
    thickness: tuple[float, float] = (0.0, 0.0)
    mark_shrunk: bool = False  # items say whether "clinical" is an area average, as "shrunk"
    # share of micro patches that are clinical CT at its own pixel size: real lung
    clinical_as_micro: float = 0.0


class PatchSource:
    """Square patches of one volume, in network intensities.

    Args:
        volume: where the voxels come from.
        window: physical values -> [-1, 1].
        patch_size, mask, rule: as in `PatchPositions`, which raises the same errors.
        pixels: edge of the square that is read and resampled to `patch_size`, to match another
            voxel size; None reads `patch_size` pixels as they are.
        zoom: smallest and largest factor on that edge, drawn anew for each patch; no more than the
            volume holds. The middle stays where it was drawn, but where the volume ends.
        slab: smallest and largest number of neighbouring slices that a patch is the average of,
            drawn anew for each patch; see `slab_of`.
    """

    def __init__(
        self,
        volume: Volume,
        window: IntensityWindow,
        patch_size: int,
        mask: np.ndarray | None = None,
        rule: Rule = "inside",
        pixels: int | None = None,
        zoom: tuple[float, float] = (1.0, 1.0),
        slab: tuple[int, int] = (1, 1),
    ) -> None:
        self.volume = volume
        self.window = window
        self._patch_size = patch_size
        self._edge = pixels or patch_size
        smallest, largest = (round(factor * self._edge) for factor in zoom)
        self._smallest = max(1, smallest)
        self._largest = max(self._smallest, min(largest, *volume.size[:2]))
        self._thinnest, self._thickest = slab
        self.positions = PatchPositions(volume, self._edge, mask, rule)
        if smallest > min(volume.size[:2]):
            raise UserError(
                f"{volume.source} is {volume.size[0]} x {volume.size[1]} pixels, expected "
                f"{smallest} each way for patches that show clinical pixels of the asked size "
                "(--scanner_pixel, or what --scanner auto found): give a smaller "
                "--clinical_patch_size, or leave this volume out"
            )

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """float32 (patch_size, patch_size) in [-1, 1], each admissible position equally likely."""
        section, *corner = self.positions.draw(generator)
        edge = self._edge
        if self._smallest < self._largest:
            edge = int(generator.integers(self._smallest, self._largest + 1))
        row, column = (
            min(max(0, start + (self._edge - edge) // 2), length - edge)
            for start, length in zip(corner, self.volume.size[1::-1], strict=True)
        )
        slices = self._thinnest
        if self._thinnest < self._thickest:
            slices = int(generator.integers(self._thinnest, self._thickest + 1))
        first = min(max(0, section - slices // 2), self.volume.num_slices - slices)
        read = self.volume.read_patch(first, row, column, edge, edge)
        for number in range(first + 1, first + slices):
            read += self.volume.read_patch(number, row, column, edge, edge)
        return self.window.to_unit(resize(read / slices, self._patch_size, self._patch_size))


class PatchDataset(Dataset[Item]):
    """Map-style dataset whose patches are drawn on the fly.

    A key is a global number, epoch * length + index. An item depends on (seed, epoch, index)
    only: not on the number of workers, on what was drawn before, or on where a run was resumed.

    Args:
        data: what patches are drawn from; `patches_per_volume` for each clinical volume make an
            epoch, at most `max_size`.
        settings: how they are drawn. Without `fresh`, as published, every epoch repeats the items
            of epoch 0.

    Raises:
        UserError: an epoch without items.
    """

    def __init__(self, data: TrainingData, settings: PatchSettings) -> None:
        length = len(data.clinical) * settings.patches_per_volume
        self._length = length if settings.max_size is None else min(length, settings.max_size)
        if self._length < 1:
            raise UserError(
                f"an epoch of {self._length} items cannot be trained on: give at least one "
                "clinical volume and one patch per volume"
            )
        self.settings = settings

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: int) -> Item:
        if key < 0:
            raise IndexError(f"item key {key} is negative")
        epoch, index = divmod(int(key), self._length)
        return self.make_item(epoch if self.settings.fresh else 0, index)

    def __iter__(self) -> Iterator[Item]:
        """Items of epoch 0. Keys have no end, so Python's own iteration would never stop."""
        return (self[key] for key in range(self._length))

    def make_item(self, epoch: int, index: int) -> Item:
        """Item `index` of `epoch`: {"clinical": (1, p, p), "micro": (1, p*k, p*k)}."""
        raise NotImplementedError

    def patch_counts(self) -> list[int]:
        """Patch positions in each volume: clinical ones first, then micro-CT."""
        raise NotImplementedError

    def generator(self, epoch: int, index: int, stream: int) -> np.random.Generator:
        """One of an item's independent random streams, so that domains do not share draws."""
        return item_generator(self.settings.seed, epoch, index, stream)

    def flipped(self, patch: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Mirror a patch left-right and up-down, each with probability 1/2, where asked to."""
        if not self.settings.flip:
            return patch
        left_right, up_down = (-1 if chance < 0.5 else 1 for chance in generator.random(2))
        return patch[::up_down, ::left_right]


class Choice:
    """Draws one of several volumes.

    Args:
        sources: at least one.
        sampling: "by_volume": each volume is equally likely; "by_size": each patch position is, so
            that large volumes are seen more often.
    """

    def __init__(self, sources: Sequence[PatchSource], sampling: Sampling = "by_volume") -> None:
        self.sources = sources
        self.by_size = sampling == "by_size"
        counts = [source.positions.count for source in sources]
        self._ends = np.cumsum(counts, dtype=np.float64)

    def draw(self, generator: np.random.Generator) -> PatchSource:
        """One of the volumes."""
        if not self.by_size:
            return self.sources[int(generator.integers(len(self.sources)))]
        place = np.searchsorted(self._ends, generator.random() * self._ends[-1], side="right")
        return self.sources[min(int(place), len(self.sources) - 1)]

    def of_item(self, index: int, generator: np.random.Generator) -> PatchSource:
        """The volume of an epoch's item: in turn, or drawn by size."""
        if self.by_size:
            return self.draw(generator)
        return self.sources[index % len(self.sources)]


def low_resolution(patch: np.ndarray, scale: int, degradation: Degradation) -> np.ndarray:
    """Shrink a patch in [-1, 1] `scale` times; a cubic zoom's overshoot is clipped."""
    return shrink(patch, scale, degradation).clip(-1.0, 1.0)


def noise_if_constant(patch: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Give a constant patch a little noise; any other one comes back as it is.

    Instance norm divides a constant by the root of its eps, and so it does to the gradient, layer
    after layer, until it overflows. Empty micro-CT and air below the window are such patches.

    Args:
        patch: float32 (rows, columns) in [-1, 1].
        generator: of the item.

    Returns:
        float32 of the same shape in [-1, 1].
    """
    if patch.min() < patch.max():
        return patch
    noise = generator.normal(0.0, CONSTANT_PATCH_NOISE, patch.shape)
    return (patch + noise.astype(np.float32)).clip(-1.0, 1.0)


def make_pair(clinical: np.ndarray, micro: np.ndarray, shrunk: bool | None = None) -> Item:
    """The item of a clinical and a micro patch; `shrunk` says what the clinical one is."""
    item = {"clinical": to_tensor(clinical), "micro": to_tensor(micro)}
    return item if shrunk is None else {**item, "shrunk": torch.tensor(shrunk)}


def to_tensor(patch: np.ndarray) -> torch.Tensor:
    """float32 (rows, columns) -> float32 tensor (1, rows, columns)."""
    return torch.from_numpy(np.ascontiguousarray(patch, dtype=np.float32))[None]


def slab_of(volume: Volume, thickness: float | None, share: tuple[float, float]) -> tuple[int, int]:
    """Slices of a volume in the thinnest and the thickest slab, at least one, at most all.

    Args:
        volume: micro-CT.
        thickness: of a clinical slice in mm; None where nobody knows.
        share: of it, thinnest and thickest.
    """
    if thickness is None or not volume.spacing_known:
        return 1, 1
    counts = (round(one * thickness / volume.spacing[2]) for one in share)
    thinnest, thickest = (min(max(1, count), volume.num_slices) for count in counts)
    return thinnest, thickest


def pixels_of(volume: Volume, edge: int, spacing: float) -> int:
    """Pixels of a volume that are as wide as `edge` pixels of `spacing` mm.

    Raises:
        UserError: the volume's in-plane voxel size is not known or not square.
    """
    x, y, _ = volume.spacing
    if not volume.spacing_known:
        raise UserError(
            f"{volume.source} states no voxel size, which --match_spacing needs: give "
            "--micro_spacing"
        )
    if abs(x - y) > SQUARE_TOLERANCE * x:
        raise UserError(
            f"{volume.source} has pixels of {x:g} x {y:g} mm, expected square ones for "
            "--match_spacing: resample it first, or leave it out"
        )
    return max(1, round(edge * spacing / x))
