"""How much a case's volumes take on the disk, known before they are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from isal import isal_zlib

from data.volumes.volume import Volume
from data.writing.packing import GZIP_LEVEL
from util.disk.disk_space import free_space, refuse_small_disk
from util.images.resampling import enlarge

SAMPLED_SLICES = 3
MORE_DETAIL = 1.2  # what networks add to an interpolation packs worse than it


def refuse_without_room(
    folder: Path, volume: Volume, scale: int, packed: float, plain: float, begun: float = 0
) -> None:
    """Refuse a case whose volumes the disk has no room for.

    Args:
        folder: of its results.
        volume: its input.
        scale: by which the largest of them is finer in plane.
        packed: bytes of all that will be packed, before that.
        plain: bytes of all that will be written as it is.
        begun: bytes of them that an earlier run has left there.

    Raises:
        UserError: says how much is free, and how much is needed.
    """
    if free_space(folder) + begun >= packed + plain:
        return
    needed = packed * packed_share(volume, scale) + plain - begun
    refuse_small_disk(folder, needed, "the result", "give another --results_dir, or fewer --slices")


def packed_share(volume: Volume, scale: int) -> float:
    """Share of its bytes that a packed result takes, by what some interpolated slices do."""
    places = np.linspace(0, volume.num_slices - 1, min(SAMPLED_SLICES, volume.num_slices))
    shares = []
    for index in places.round().astype(int):
        image = volume.read_slice(int(index))
        fine = enlarge(image, scale, 3) if scale > 1 else image
        content = np.rint(fine).astype(np.int16).tobytes()
        shares.append(len(isal_zlib.compress(content, GZIP_LEVEL)) / len(content))
    return min(1.0, MORE_DETAIL * float(np.mean(shares)))
