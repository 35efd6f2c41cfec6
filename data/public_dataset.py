"""Public setting of SR-CycleGAN (`public_2D`): clinical CT alone plays both parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.patches import (
    Choice,
    Degradation,
    Item,
    PatchDataset,
    PatchSource,
    Sampling,
    epoch_length,
    low_resolution,
    noise_if_constant,
    to_tensor,
)
from data.volumes.volume import Volume
from data.windows import WindowPolicy
from util.errors import UserError

_LOW, _HIGH = 0, 1  # random streams of an item


class PublicDataset(PatchDataset):
    """High-resolution CT patches, and unpaired with them, shrunk ones as low resolution.

    Items are {"clinical": low resolution (1, hr_size/k, hr_size/k), "micro": high resolution
    (1, hr_size, hr_size)}, float32 in [-1, 1]. The low-resolution patch is made from another,
    independently drawn high-resolution patch, so the two do not show the same place.

    Args:
        clinical: CT volumes, each with its lung mask (z, y, x) or None for everywhere. Patch
            centres lie inside the mask: a patch of 192 pixels seldom lies wholly inside. The
            low-resolution patches go through the volumes in turn; the others are drawn from any.
        windows: gives each volume its window (published: HU -1000 to 500).
        hr_size: side of a high-resolution patch in pixels, a multiple of `scale` (published: 192).
        scale: k = 2^n (published: 4).
        patches_per_volume: items an epoch for each volume.
        seed: 0 to 2^64 - 1.
        degradation: how patches are shrunk (`data.patches.shrink`).
        flip: mirror each patch at random, left-right and up-down.
        fresh: False repeats the items of epoch 0 in every epoch.
        noise_probability: how often Gaussian noise is added to the low-resolution patch.
        noise_sigma: its standard deviation, on the networks' scale of [-1, 1].
        max_size: upper limit for the items an epoch.
        sampling: how often each volume is taken, see `data.patches.Choice`.

    Raises:
        UserError: hr_size is not a multiple of scale, no item, a volume or mask that no patch fits
            in, or a constant volume under "minmax".
    """

    def __init__(
        self,
        clinical: Sequence[tuple[Volume, np.ndarray | None]],
        windows: WindowPolicy,
        hr_size: int,
        scale: int,
        patches_per_volume: int,
        seed: int,
        degradation: Degradation = "area",
        flip: bool = True,
        fresh: bool = True,
        noise_probability: float = 0.1,
        noise_sigma: float = 0.05,
        max_size: int | None = None,
        sampling: Sampling = "by_volume",
    ) -> None:
        super().__init__(epoch_length(clinical, patches_per_volume, max_size), seed, fresh, flip)
        if hr_size % scale:
            raise UserError(
                f"high-resolution patches of {hr_size} pixels cannot be shrunk {scale} times: "
                f"give a size that is a multiple of {scale}"
            )
        sources = [
            PatchSource(volume, windows.window_for(volume, "clinical"), hr_size, mask, "centre")
            for volume, mask in clinical
        ]
        self._volumes = Choice(sources, sampling)
        self._scale = scale
        self._degradation: Degradation = degradation
        self._noise_probability = noise_probability
        self._noise_sigma = noise_sigma

    def make_item(self, epoch: int, index: int) -> Item:
        generator = self.generator(epoch, index, _LOW)
        low = noise_if_constant(self._low_patch(index, generator), generator)
        generator = self.generator(epoch, index, _HIGH)
        high = noise_if_constant(self._high_patch(generator), generator)
        return {"clinical": to_tensor(low), "micro": to_tensor(high)}

    def patch_counts(self) -> list[int]:
        """Patch positions in each volume."""
        return [source.positions.count for source in self._volumes.sources]

    def _high_patch(self, generator: np.random.Generator) -> np.ndarray:
        return self.flipped(self._volumes.draw(generator).draw(generator), generator)

    def _low_patch(self, index: int, generator: np.random.Generator) -> np.ndarray:
        large = self._volumes.of_item(index, generator).draw(generator)
        patch = self.flipped(low_resolution(large, self._scale, self._degradation), generator)
        if generator.random() < self._noise_probability:
            noise = generator.standard_normal(patch.shape, dtype=np.float32)
            patch = (patch + np.float32(self._noise_sigma) * noise).clip(-1.0, 1.0)
        return patch
