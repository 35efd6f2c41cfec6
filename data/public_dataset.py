"""Public setting of SR-CycleGAN (`public_2D`): clinical CT alone plays both parts."""

from __future__ import annotations

import numpy as np

from data.patches import (
    Choice,
    Item,
    PatchDataset,
    PatchSettings,
    PatchSource,
    low_resolution,
    make_pair,
    noise_if_constant,
)
from data.training_data import TrainingData
from util.errors import UserError

_LOW, _HIGH = 0, 1  # random streams of an item
NOISE_PROBABILITY = 0.1  # of a low-resolution patch, as published
NOISE_SIGMA = 0.05  # on the networks' scale of [-1, 1]


class PublicDataset(PatchDataset):
    """High-resolution CT patches, and unpaired with them, shrunk ones as low resolution.

    Items are {"clinical": low resolution (1, p/k, p/k), "micro": high resolution
    (1, p, p)}, float32 in [-1, 1]. The low-resolution patch is made from another,
    independently drawn high-resolution patch, so the two do not show the same place.

    Args:
        data: CT volumes with their lung masks (None for everywhere). Patch centres lie inside the
            mask: a patch of 192 pixels seldom lies wholly inside. The low-resolution patches go
            through the volumes in turn; the others are drawn from any.
        settings: how patches are drawn; published are 192 pixels and 4x.

    Raises:
        UserError: the micro patch size is not a multiple of the scale, no item, a volume or mask
            that no patch fits in, or a constant volume under "minmax".
    """

    def __init__(self, data: TrainingData, settings: PatchSettings) -> None:
        super().__init__(data, settings)
        size, scale = settings.micro_patch_size, settings.scale
        if size % scale:
            raise UserError(
                f"high-resolution patches of {size} pixels cannot be shrunk {scale} times: "
                f"give a size that is a multiple of {scale}"
            )
        sources = [
            PatchSource(
                volume,
                data.windows.window_for(volume, "clinical"),
                size,
                mask,
                "centre",
                zoom=settings.zoom,
            )
            for volume, mask in data.clinical
        ]
        self._volumes = Choice(sources, settings.sampling)

    def make_item(self, epoch: int, index: int) -> Item:
        generator = self.generator(epoch, index, _LOW)
        low = noise_if_constant(self._low_patch(index, generator), generator)
        generator = self.generator(epoch, index, _HIGH)
        high = noise_if_constant(self._high_patch(generator), generator)
        return make_pair(low, high, True if self.settings.mark_shrunk else None)

    def patch_counts(self) -> list[int]:
        """Patch positions in each volume."""
        return [source.positions.count for source in self._volumes.sources]

    def _high_patch(self, generator: np.random.Generator) -> np.ndarray:
        return self.flipped(self._volumes.draw(generator).draw(generator), generator)

    def _low_patch(self, index: int, generator: np.random.Generator) -> np.ndarray:
        large = self._volumes.of_item(index, generator).draw(generator)
        patch = self.flipped(
            low_resolution(large, self.settings.scale, self.settings.degradation), generator
        )
        if not self.settings.mark_shrunk and generator.random() < NOISE_PROBABILITY:
            noise = generator.standard_normal(patch.shape, dtype=np.float32)
            patch = (patch + np.float32(NOISE_SIGMA) * noise).clip(-1.0, 1.0)
        return patch
