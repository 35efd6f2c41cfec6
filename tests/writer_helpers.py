"""Small volumes written by `NiftiSliceWriter` and broken off."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.writing.nifti_writer import NiftiSliceWriter
from data.writing.packing import SliceStream

AFFINE = np.diag([0.1, 0.1, 2.5, 1.0])
VOXELS = np.random.default_rng(0).integers(-1024, 3000, (5, 60, 70)).astype(np.int16)
SIZE = (70, 60, 5)
KEY: dict[str, Any] = {"weights": "1a2b", "options": {"scale": 8, "input": Path("scan.nii")}}
NAMES = ["a.nii", "a.nii.gz"]


class StopError(Exception):
    """Ends a run in the middle."""


def writer_for(path: Path, **options: Any) -> NiftiSliceWriter:
    return NiftiSliceWriter(path, SIZE, AFFINE, **({"resume_key": KEY} | options))


def write(path: Path, stop: int | None = None, **options: Any) -> int:
    """Write all slices, or break off after `stop` of them; how many were resumed."""
    with writer_for(path, **options) as writer:
        taken_up = writer.slices_written
        for values in VOXELS[taken_up:stop]:
            writer.append(values)
        if stop is not None:
            raise StopError
    return taken_up


def stop_after(path: Path, slices: int, **options: Any) -> None:
    with pytest.raises(StopError):
        write(path, slices, **options)


def partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial.journal")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def append_all(writer: NiftiSliceWriter, slices: Iterable[np.ndarray]) -> None:
    with writer:
        for values in slices:
            writer.append(values)


def write_each_slice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no slice wait, so that the memory in use does not depend on how fast threads are."""
    put = SliceStream.put

    def put_and_drain(stream: SliceStream, raw: memoryview) -> None:
        put(stream, raw)
        stream.drain()

    monkeypatch.setattr(SliceStream, "put", put_and_drain)
