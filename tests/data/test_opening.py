"""Opening what the words of a command line name, with lung masks and fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_helpers import write_case

import data.opening
from data.lung_mask import load_lung_mask
from data.opening import open_volumes, open_with_lung_mask, slice_digests
from data.volumes.volume import Volume


def test_a_computed_mask_does_not_depend_on_the_slices_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_case(tmp_path, "ct", (20, 16, 4))
    sizes = []
    load = load_lung_mask

    def watched(volume: Volume, *rest: Any) -> np.ndarray:
        sizes.append(volume.num_slices)
        return load(volume, *rest)

    monkeypatch.setattr(data.opening, "load_lung_mask", watched)
    volume, mask = open_with_lung_mask(path, None, None, slices="-1:")
    assert sizes == [4]
    assert mask is not None
    assert (volume.num_slices, mask.shape) == (1, (1, 16, 20))


def test_digests_leave_out_constant_and_repeated_slices() -> None:
    array = np.arange(4 * 6, dtype=np.int16).reshape(4, 2, 3)
    array[1] = array[0]
    array[2] = 7
    volume = Volume(array, np.eye(4), "memory")
    digests = slice_digests([volume, volume])
    assert len(digests) == 2
    assert all(len(digest) == 16 for digest in digests)


def test_open_volumes_takes_the_spacing_of_tiff(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(
        tmp_path / "micro.tif",
        np.arange(5 * 12 * 10, dtype=np.uint16).reshape(5, 12, 10),
        photometric="minisblack",
    )
    (volume,) = open_volumes([str(tmp_path)], None, (0.02, 0.02, 0.04), ":2")
    assert volume.spacing == pytest.approx((0.02, 0.02, 0.04))
    assert volume.size == (10, 12, 2)


def test_large_volumes_are_fingerprinted_by_a_few_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 99, (50, 4, 5)).astype(np.int16)
    volume = Volume(array, np.eye(4), "memory")
    whole = slice_digests([volume])
    monkeypatch.setattr(data.opening, "LARGE_BYTES", 100)
    few = slice_digests([volume])
    assert len(whole) == 50
    assert len(few) == data.opening.DIGESTS_OF_LARGE
    assert set(few) < set(whole)
