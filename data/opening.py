"""Open what the words of a command line name: volumes, and clinical CT with its lung masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from data.formats.zarr_store import is_zarr
from data.lung_mask import load_lung_mask
from data.volumes.volume import LARGE_BYTES, Volume, parse_slices, slice_digest
from data.windows import Domain

Spacing = tuple[float, float, float]
DIGESTS_OF_LARGE = 4  # a slice of a Zarr volume costs all the chunks that it crosses


def open_volumes(
    words: Sequence[str],
    cache_dir: Path | None,
    spacing: Spacing | None = None,
    slices: str | None = None,
) -> list[Volume]:
    """Open every volume that the words name.

    Args:
        words: files, folders or globs; see `data.formats.discovery.find_volumes`.
        cache_dir: folder for unpacked volumes; None takes the user's cache folder.
        spacing: voxel size (x, y, z) in mm of TIFF volumes.
        slices: START:STOP applied to each volume; None takes all.
    """
    volumes = []
    for path in find_volumes(words, cache_dir):
        volume = read_volume(path, cache_dir, spacing)
        if slices is not None:
            volume = volume.select_slices(*parse_slices(slices, volume.num_slices))
        volumes.append(volume)
    return volumes


def spacing_for(path: Path, domain: Domain, spacing: Spacing | None) -> Spacing | None:
    """What --micro_spacing says of a volume: it is for files that cannot state a voxel size, and so
    not for CT in Zarr."""
    return None if domain == "clinical" and is_zarr(path) else spacing


def open_with_lung_mask(
    path: Path,
    cache_dir: Path | None,
    mask_folder: Path | None,
    spacing: Spacing | None = None,
    slices: str | None = None,
) -> tuple[Volume, np.ndarray | None]:
    """Open one clinical volume with its lung mask (z, y, x) on the same slices.

    The mask is found or computed for the whole CT before slices are selected, so that it does
    not depend on the selection.
    """
    volume = read_volume(path, cache_dir, spacing)
    mask = load_lung_mask(volume, mask_folder, cache_dir)
    if slices is not None:
        start, stop = parse_slices(slices, volume.num_slices)
        volume, mask = volume.select_slices(start, stop), mask[start:stop]
    return volume, mask


def slice_digests(volumes: Sequence[Volume]) -> list[str]:
    """Fingerprints of the slices of all volumes, without those of constant slices.

    Of a volume that is larger than memory might be, only `DIGESTS_OF_LARGE` slices, evenly spaced:
    reading it whole would take minutes before the first step.
    """
    digests: set[str] = set()
    for volume in volumes:
        indices = np.arange(volume.num_slices)
        if volume.array.nbytes > LARGE_BYTES:
            indices = np.unique(np.linspace(0, len(indices) - 1, DIGESTS_OF_LARGE).astype(int))
        digests.update(slice_digest(volume.read_slice(int(index))) for index in indices)
    return sorted(digests - {""})
