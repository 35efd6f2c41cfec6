"""From a slice of any size to its 2^n enlargement by G_A alone."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from models.networks import SRGenerator
from models.norm_scope import scope_norms

SMALLEST_EDGE = 4  # reflection padding by 3 needs one pixel more


class SuperResolver:
    """Applies G_A once to each slice: whole by default, or in tiles as published.

    Instance norm takes its statistics from what it is given. On the whole slice they are the
    slice's, or those of a mask's pixels (see models/norm_scope.py), so nothing depends on a grid
    of tiles; with `tile_size` each tile has its own, as in the published test, and intensities and
    seams depend on the tile.

    Args:
        generator: G_A, on the CPU.
        device: where to compute.
        precision: fp32 or bf16 (autocast).
        tile_size: tile edge in input pixels, at least 4; None for the whole slice.
    """

    def __init__(
        self,
        generator: SRGenerator,
        device: torch.device,
        precision: str = "fp32",
        tile_size: int | None = None,
    ) -> None:
        self.norm_scope = scope_norms(generator)
        self.generator = generator.to(device).eval()
        self.scale = generator.scale
        self.device = device
        self.precision = precision
        self.tile_size = tile_size

    def upscale_slice(self, image: np.ndarray, scope: np.ndarray | None = None) -> np.ndarray:
        """Enlarge one slice.

        Args:
            image: float32 (rows, columns) in [-1, 1], of any size.
            scope: mask (rows, columns), not empty, whose pixels give the norm statistics; None
                takes them all. Tiles keep their own statistics whatever the scope.

        Returns:
            float32 (rows * scale, columns * scale) in [-1, 1].
        """
        if self.tile_size is None:
            return self._run(image, scope)
        rows, columns = image.shape
        scale = self.scale
        enlarged = np.empty((rows * scale, columns * scale), dtype=np.float32)
        for top, bottom in tile_edges(rows, self.tile_size):
            for left, right in tile_edges(columns, self.tile_size):
                # A tile at the far border is moved inwards to its full size, then cut.
                first_row = max(0, bottom - self.tile_size)
                first_column = max(0, right - self.tile_size)
                tile = self._run(image[first_row:bottom, first_column:right])
                enlarged[top * scale : bottom * scale, left * scale : right * scale] = tile[
                    (top - first_row) * scale :, (left - first_column) * scale :
                ]
        return enlarged

    @torch.inference_mode()
    def _run(self, image: np.ndarray, scope: np.ndarray | None = None) -> np.ndarray:
        rows, columns = image.shape
        tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
        below, right = max(0, SMALLEST_EDGE - rows), max(0, SMALLEST_EDGE - columns)
        tensor = F.pad(tensor.to(self.device), (0, right, 0, below), mode="replicate")
        if scope is not None:
            scope = np.pad(scope != 0, ((0, below), (0, right)))
        self.norm_scope.set_mask(scope, self.device)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        ):
            enlarged = self.generator(tensor)
        enlarged = enlarged[0, 0, : rows * self.scale, : columns * self.scale]
        result: np.ndarray = enlarged.float().cpu().numpy()
        return result


def tile_edges(length: int, tile: int) -> list[tuple[int, int]]:
    """Cut 0..length into pieces [start, stop) of `tile`, the last one shorter where needed."""
    return [(start, min(start + tile, length)) for start in range(0, length, tile)]
