"""From weights and volumes in HU to enlarged volumes: the way in from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.checkpoints.checkpoint import load_generator
from models.inference.slice_jobs import SliceJob, refuse_unfit
from models.inference.slice_resolver import SliceResolver
from util.errors import UserError
from util.images.intensity_window import IntensityWindow


class SuperResolver(SliceResolver):
    """A slice resolver that knows its weights' window and takes whole volumes.

    Attributes:
        window: HU mapped to [-1, 1], where `from_checkpoint` found one.
    """

    window: IntensityWindow | None = None

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
        settings = {"spread": loaded.spread, **settings}
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
            else SliceJob(chosen.to_unit(slices[i]), None if masks is None else masks[i], index=i)
            for i in range(count)
        )
        for index, unit in enumerate(self.upscale_slices(jobs)):
            if unit is not None:
                result[index] = chosen.to_physical(unit)
        return result[0] if volume.ndim == 2 else result
