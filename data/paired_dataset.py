"""Registered pairs (`paired`): what supervised training could reach where a truth exists.

Real clinical and micro-CT are never registered; the phantom's are (`python -m data.phantom`).
"""

from __future__ import annotations

from data.patches import Choice, Item, PatchDataset, PatchSettings, PatchSource, to_tensor
from data.training_data import TrainingData
from data.volumes.volume import Volume
from data.windows import IntensityWindow
from util.errors import UserError


class PairedDataset(PatchDataset):
    """The same place in a clinical volume and in its truth.

    Items are {"clinical": (1, p, p), "micro": (1, p*k, p*k)}, float32 in [-1, 1], flipped alike.

    Args:
        data: CT volumes with their lung masks (None for everywhere), inside which patch centres
            lie; as micro-CT, for each of them the same slices on a grid k times as fine in plane,
            in this order.
        settings: how patches are drawn.

    Raises:
        UserError: no truth for a volume, or one of another size; no item, or no room for a patch.
    """

    def __init__(self, data: TrainingData, settings: PatchSettings) -> None:
        super().__init__(data, settings)
        if len(data.clinical) != len(data.micro):
            raise UserError(
                f"paired training got {len(data.clinical)} clinical and {len(data.micro)} micro "
                "volumes: give one truth for each clinical volume, in the same order"
            )
        for (volume, _), truth in zip(data.clinical, data.micro, strict=True):
            refuse_other_grid(volume, truth, settings.scale)
        windows, size = data.windows, settings.clinical_patch_size
        sources = [
            PatchSource(volume, windows.window_for(volume, "clinical"), size, mask, "centre")
            for volume, mask in data.clinical
        ]
        self._clinical = Choice(sources, settings.sampling)
        self._truths: dict[int, tuple[Volume, IntensityWindow]] = {
            number: (truth, windows.window_for(truth, "micro"))
            for number, truth in enumerate(data.micro)
        }

    def make_item(self, epoch: int, index: int) -> Item:
        generator = self.generator(epoch, index, 0)
        source = self._clinical.of_item(index, generator)
        section, row, column = source.positions.draw(generator)
        truth, window = self._truths[self._clinical.sources.index(source)]
        edge, scale = self.settings.clinical_patch_size, self.settings.scale
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
