"""TensorBoard event files: curves and pictures without a server running beside the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from util.errors import UserError


class TensorBoardLog:
    """Writes scalars and grey pictures into a folder that `tensorboard --logdir` shows.

    Args:
        folder: of the event files.
        step: steps done so far; TensorBoard hides what an earlier part of the run, which died,
            logged beyond it.

    Raises:
        UserError: the package tensorboard is missing.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard needs the package tensorboard: pip install tensorboard, or take "
                "--display_id 1 for visdom"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        """Add a point to the curve `group`/name of each value."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Add grey pictures (rows, columns)."""
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HW")

    def flush(self) -> None:
        """Bring all to the disk."""
        self._writer.flush()
