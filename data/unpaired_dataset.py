"""Unpaired clinical and micro patches: the training data of SR-CycleGAN (paper, "Data")."""

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
    pixels_of,
    to_tensor,
)
from data.volumes.volume import Volume
from data.windows import WindowPolicy
from util.errors import UserError

_CLINICAL, _MICRO = 0, 1  # random streams of an item


class UnpairedDataset(PatchDataset):
    """Clinical patches inside the lung mask, each with a micro patch drawn apart from it.

    Items are {"clinical": (1, p, p), "micro": (1, p*k, p*k)}, float32 in [-1, 1].

    Args:
        clinical: CT volumes, each with its lung mask (z, y, x) or None for everywhere. Clinical
            patches lie wholly inside the mask. Items go through the volumes in turn.
        micro: micro-CT volumes.
        windows: gives each volume its intensity window.
        patch_size: p, side of a clinical patch in pixels.
        scale: k = 2^n.
        patches_per_volume: items an epoch for each clinical volume.
        seed: 0 to 2^64 - 1.
        micro_mix: probability that the clinical patch is replaced by a micro patch, other than
            the partner, shrunk k times (published: a quarter).
        degradation: how that micro patch is shrunk (`data.patches.shrink`).
        flip: mirror each patch at random, left-right and up-down.
        serial: True restores the published index pairing: item n takes its micro patch from
            volume n modulo the number of micro volumes; with fresh=False too, the n-th clinical
            patch always meets the n-th micro patch. False draws the partner's volume as well.
        fresh: False restores the published behaviour of the same items in every epoch.
        max_size: upper limit for the items an epoch.
        sampling: how often each volume is taken, see `data.patches.Choice`.
        micro_spacing: in-plane voxel size in mm that micro patches are resampled to; None takes
            their pixels as they are.

    Raises:
        UserError: no micro volume, no item, a volume or mask that no patch fits in, or a
            constant volume under "minmax".
    """

    def __init__(
        self,
        clinical: Sequence[tuple[Volume, np.ndarray | None]],
        micro: Sequence[Volume],
        windows: WindowPolicy,
        patch_size: int,
        scale: int,
        patches_per_volume: int,
        seed: int,
        micro_mix: float = 0.25,
        degradation: Degradation = "area",
        flip: bool = True,
        serial: bool = False,
        fresh: bool = True,
        max_size: int | None = None,
        sampling: Sampling = "by_volume",
        micro_spacing: float | None = None,
    ) -> None:
        super().__init__(epoch_length(clinical, patches_per_volume, max_size), seed, fresh, flip)
        if not micro:
            raise UserError("unpaired training needs micro-CT: give at least one micro volume")
        edge = patch_size * scale
        sources = [
            PatchSource(volume, windows.window_for(volume, "clinical"), patch_size, mask)
            for volume, mask in clinical
        ]
        self._clinical = Choice(sources, sampling)
        sources = [
            PatchSource(
                volume,
                windows.window_for(volume, "micro"),
                edge,
                pixels=None if micro_spacing is None else pixels_of(volume, edge, micro_spacing),
            )
            for volume in micro
        ]
        self._micro = Choice(sources, sampling)
        self._scale = scale
        self._micro_mix = micro_mix
        self._degradation: Degradation = degradation
        self._serial = serial

    def make_item(self, epoch: int, index: int) -> Item:
        generator = self.generator(epoch, index, _CLINICAL)
        clinical = noise_if_constant(self._clinical_patch(index, generator), generator)
        generator = self.generator(epoch, index, _MICRO)
        micro = noise_if_constant(self._micro_patch(index, generator), generator)
        return {"clinical": to_tensor(clinical), "micro": to_tensor(micro)}

    def patch_counts(self) -> list[int]:
        """Patch positions in each volume: clinical ones first, then micro-CT."""
        sources = [*self._clinical.sources, *self._micro.sources]
        return [source.positions.count for source in sources]

    def _clinical_patch(self, index: int, generator: np.random.Generator) -> np.ndarray:
        if generator.random() < self._micro_mix:
            large = self._micro.draw(generator).draw(generator)
            patch = low_resolution(large, self._scale, self._degradation)
        else:
            patch = self._clinical.of_item(index, generator).draw(generator)
        return self.flipped(patch, generator)

    def _micro_patch(self, index: int, generator: np.random.Generator) -> np.ndarray:
        if self._serial:
            source = self._micro.of_item(index, generator)
        else:
            source = self._micro.draw(generator)
        return self.flipped(source.draw(generator), generator)
