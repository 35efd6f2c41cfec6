"""Registered pairs (`paired`): what supervised training could reach where a truth exists.

Real clinical and micro-CT are never registered; the phantom's are (`python -m data.phantom`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.patches import Choice, Item, PatchDataset, PatchSource, Sampling, epoch_length, to_tensor
from data.volumes.volume import Volume
from data.windows import IntensityWindow, WindowPolicy
from util.errors import UserError


class PairedDataset(PatchDataset):
    """The same place in a clinical volume and in its truth.

    Items are {"clinical": (1, p, p), "micro": (1, p*k, p*k)}, float32 in [-1, 1], flipped alike.

    Args:
        clinical: CT volumes, each with its lung mask (z, y, x) or None for everywhere. Patch
            centres lie inside the mask.
        truths: for each of them the same slices on a grid k times as fine in plane, in this order.
        windows: gives each volume its intensity window.
        patch_size: p, side of a clinical patch in pixels.
        scale: k = 2^n.
        patches_per_volume: items an epoch for each clinical volume.
        seed: 0 to 2^64 - 1.
        flip: mirror each pair at random, left-right and up-down.
        fresh: False repeats the items of epoch 0 in every epoch.
        max_size: upper limit for the items an epoch.
        sampling: how often each volume is taken, see `data.patches.Choice`.

    Raises:
        UserError: no truth for a volume, or one of another size; no item, or no room for a patch.
    """

    def __init__(
        self,
        clinical: Sequence[tuple[Volume, np.ndarray | None]],
        truths: Sequence[Volume],
        windows: WindowPolicy,
        patch_size: int,
        scale: int,
        patches_per_volume: int,
        seed: int,
        flip: bool = True,
        fresh: bool = True,
        max_size: int | None = None,
        sampling: Sampling = "by_volume",
    ) -> None:
        super().__init__(epoch_length(clinical, patches_per_volume, max_size), seed, fresh, flip)
        if len(clinical) != len(truths):
            raise UserError(
                f"paired training got {len(clinical)} clinical and {len(truths)} micro volumes: "
                "give one truth for each clinical volume, in the same order"
            )
        for (volume, _), truth in zip(clinical, truths, strict=True):
            refuse_other_grid(volume, truth, scale)
        sources = [
            PatchSource(volume, windows.window_for(volume, "clinical"), patch_size, mask, "centre")
            for volume, mask in clinical
        ]
        self._clinical = Choice(sources, sampling)
        self._truths: dict[int, tuple[Volume, IntensityWindow]] = {
            number: (truth, windows.window_for(truth, "micro"))
            for number, truth in enumerate(truths)
        }
        self._patch_size = patch_size
        self._scale = scale

    def make_item(self, epoch: int, index: int) -> Item:
        generator = self.generator(epoch, index, 0)
        source = self._clinical.of_item(index, generator)
        section, row, column = source.positions.draw(generator)
        truth, window = self._truths[self._clinical.sources.index(source)]
        edge, scale = self._patch_size, self._scale
        low = source.window.to_unit(source.volume.read_patch(section, row, column, edge, edge))
        place = (section, row * scale, column * scale, edge * scale, edge * scale)
        high = window.to_unit(truth.read_patch(*place))
        # One draw for both: they must stay registered.
        state = generator.bit_generator.state
        low = self.flipped(low, generator)
        generator.bit_generator.state = state
        high = self.flipped(high, generator)
        return {"clinical": to_tensor(low), "micro": to_tensor(high)}

    def patch_counts(self) -> list[int]:
        """Patch positions in each volume: clinical ones first, then their truths."""
        counts = [source.positions.count for source in self._clinical.sources]
        return [*counts, *counts]


def refuse_other_grid(volume: Volume, truth: Volume, scale: int) -> None:
    """Refuse a truth that does not show a volume's field `scale` times as fine in plane.

    Raises:
        UserError: says both sizes.
    """
    columns, rows, slices = volume.size
    expected = (columns * scale, rows * scale, slices)
    if truth.size != expected:
        raise UserError(
            f"{truth.source} has {'x'.join(map(str, truth.size))} voxels, expected "
            f"{'x'.join(map(str, expected))}, {scale} times {volume.source} in plane: give the "
            "truths in the order of the clinical volumes"
        )
