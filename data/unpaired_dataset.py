"""Unpaired clinical and micro patches: the training data of SR-CycleGAN (paper, "Data")."""

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
    pixels_of,
    slab_of,
)
from data.training_data import TrainingData
from util.errors import UserError

_CLINICAL, _MICRO = 0, 1  # random streams of an item


class UnpairedDataset(PatchDataset):
    """Clinical patches inside the lung mask, each with a micro patch drawn apart from it.

    Items are {"clinical": (1, p, p), "micro": (1, p*k, p*k)}, float32 in [-1, 1].

    Args:
        data: CT volumes with their lung masks (None for everywhere), inside which clinical patches
            lie wholly; items go through these volumes in turn. Micro-CT, drawn for each item, and
            the windows of both.
        settings: how patches are drawn. With `micro_mix`, the published quarter, a clinical patch
            is now and then replaced by a shrunk micro patch, other than the partner. With
            `clinical_as_micro` a micro patch is now and then one of clinical CT, as large in
            pixels, whose centre lies in the lung: what lungs are made of looks alike over a wide
            range of sizes, and of micro-CT there is little. `serial` restores the published index
            pairing: item n takes its micro patch from volume n modulo the number of micro volumes;
            without `fresh` too, the n-th clinical patch always meets the n-th micro patch.

    Raises:
        UserError: no micro volume, no item, a volume or mask that no patch fits in, a constant
            volume under "minmax", or voxel sizes that `match_spacing` cannot match.
    """

    def __init__(self, data: TrainingData, settings: PatchSettings) -> None:
        super().__init__(data, settings)
        if not data.micro:
            raise UserError("unpaired training needs micro-CT: give at least one micro volume")
        windows, size = data.windows, settings.clinical_patch_size
        sources = [
            PatchSource(volume, windows.window_for(volume, "clinical"), size, mask)
            for volume, mask in data.clinical
        ]
        self._clinical = Choice(sources, settings.sampling)
        edge = size * settings.scale
        spacing = data.clinical_spacing / settings.scale if settings.match_spacing else None
        sources = [
            PatchSource(
                volume,
                windows.window_for(volume, "micro"),
                edge,
                pixels=None if spacing is None else pixels_of(volume, edge, spacing),
                zoom=settings.zoom,
                slab=slab_of(volume, data.clinical_thickness, settings.thickness),
            )
            for volume in data.micro
        ]
        self._micro = Choice(sources, settings.sampling)
        self._lung = self._fine_clinical(data, edge) if settings.clinical_as_micro > 0 else None

    def _fine_clinical(self, data: TrainingData, edge: int) -> Choice:
        """Clinical CT as micro patches; those that are too small for one are left out, by name."""
        small = [volume.source for volume, _ in data.clinical if min(volume.size[:2]) < edge]
        if small and len(small) < len(data.clinical):
            print(
                f"--clinical_as_micro leaves out {len(small)} of {len(data.clinical)} clinical "
                f"volumes, which are smaller than its patches of {edge} x {edge}: {small[0]}"
                + " and others"
                * (len(small) > 1)
            )
        sources = [
            PatchSource(
                volume, data.windows.window_for(volume, "clinical"), edge, mask, rule="centre"
            )
            for volume, mask in data.clinical
            if min(volume.size[:2]) >= edge
        ]
        if not sources:
            raise UserError(
                f"--clinical_as_micro takes patches of {edge} x {edge} pixels from clinical CT, "
                "and none is as large: give a smaller --clinical_patch_size, or leave it out"
            )
        return Choice(sources, self.settings.sampling)

    def make_item(self, epoch: int, index: int) -> Item:
        generator = self.generator(epoch, index, _CLINICAL)
        patch, shrunk = self._clinical_patch(index, generator)
        clinical = noise_if_constant(patch, generator)
        generator = self.generator(epoch, index, _MICRO)
        micro = noise_if_constant(self._micro_patch(index, generator), generator)
        return make_pair(clinical, micro, shrunk if self.settings.mark_shrunk else None)

    def patch_counts(self) -> list[int]:
        """Patch positions in each volume: clinical ones first, then micro-CT."""
        sources = [*self._clinical.sources, *self._micro.sources]
        return [source.positions.count for source in sources]

    def _clinical_patch(
        self, index: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, bool]:
        """The patch, and whether it is a shrunk micro patch."""
        shrunk = generator.random() < self.settings.micro_mix
        if shrunk:
            large = self._fine_source(generator).draw(generator)
            patch = low_resolution(large, self.settings.scale, self.settings.degradation)
        else:
            patch = self._clinical.of_item(index, generator).draw(generator)
        return self.flipped(patch, generator), shrunk

    def _micro_patch(self, index: int, generator: np.random.Generator) -> np.ndarray:
        if self.settings.serial:
            source = self._micro.of_item(index, generator)
        else:
            source = self._fine_source(generator)
        return self.flipped(source.draw(generator), generator)

    def _fine_source(self, generator: np.random.Generator) -> PatchSource:
        """A micro volume, or clinical CT in its place."""
        if self._lung is not None and generator.random() < self.settings.clinical_as_micro:
            return self._lung.draw(generator)
        return self._micro.draw(generator)
