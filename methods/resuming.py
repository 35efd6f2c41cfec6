"""What an earlier run left of a case: whether it is finished, and how it is gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from data.journal import differences
from data.partial_file import begun_with, forget_journal, partial_files
from models.super_resolver import SuperResolver
from util.devices import arithmetic_name
from util.errors import UserError
from util.files import plain


def is_finished(folder: Path, names: list[str], key: Mapping[str, Any]) -> bool:
    """Whether an earlier run of the same key has left every file of a case, and no partial one.

    Args:
        folder: of the case.
        names: its files besides run.json; the result first.
        key: what determines the voxels, see `methods.volume_upscaling.UpscaleSettings.key`.

    Raises:
        UserError: the case was finished by a run of another key.
    """
    record = folder / "run.json"
    if not all((folder / name).exists() for name in (*names, "run.json")):
        return False
    left = [partial_files(folder / name) for name in names]
    if any(partial.exists() for partial, _ in left):
        return False
    stored = _recorded_key(record)
    if stored is None:
        unlike = f"{record} does not say which (an older version wrote it, or it is damaged)"
    else:
        unlike = differences(stored, plain(key))
    if unlike and any(journal.exists() for _, journal in left):
        return False  # the files are newer: their run was cut off before it recorded them
    if unlike:
        raise UserError(
            f"{folder / names[0]} was made by another kind of run: {unlike}: --overwrite without "
            "--resume replaces it, --results_dir FOLDER writes elsewhere"
        )
    return True


def forget_journals(folder: Path, names: list[str]) -> None:
    """End what `--resume` could take up: run.json now vouches for the files."""
    for name in names:
        forget_journal(folder / name)


def rounding_facts(resolver: SuperResolver) -> dict[str, Any]:
    """What a slice's values depend on, to the last bit, besides itself, weights and statistics."""
    openvino = version("openvino") if resolver.backend == "openvino" else None
    return {
        "precision": resolver.precision,
        "backend": resolver.backend,
        "patch_size": resolver.tile_size,
        "max_memory": resolver.max_memory,
        "band_values": resolver.engine.band_values,
        "memory_format": str(resolver.engine.memory_format),
        "threads": torch.get_num_threads(),
        "device": arithmetic_name(resolver.device),
        "torch": torch.__version__,
        "openvino": openvino,
    }


def plan_as_before(
    resolver: SuperResolver, rows: int, columns: int, folder: Path, name: str
) -> None:
    """Give the resolver the memory that the run to be taken up had, if there is one.

    How much memory a slice may take decides which maps are computed anew, and so the last bit of
    the result (models/memory_plan.py). Free memory is another one each time.

    Args:
        resolver: its `max_memory` is set.
        rows, columns: of the input slices.
        folder: of the case.
        name: of its result.

    Raises:
        UserError: so much is not free now.
    """
    begun = begun_with(folder / name)
    left = _recorded_key(folder / "run.json") if begun is None else begun["run"]
    before = None if left is None else left.get("max_memory")
    if not isinstance(before, int):
        return
    kept = resolver.memory.levels_to_keep(rows, columns, before)
    needed, free = resolver.memory.needed(rows * columns, kept), resolver.free_budget()
    if needed > free:
        raise UserError(
            f"{folder / name} was begun with {needed / 1e9:.2f} GB for a slice, the free memory "
            f"allows {free / 1e9:.2f} GB: end other programs, or run without --resume to start anew"
        )
    resolver.max_memory = before


def _recorded_key(record: Path) -> dict[str, Any] | None:
    """The key in a run record; None where there is none."""
    try:
        key = json.loads(record.read_text(encoding="utf-8"))["determined_by"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, dict) else None
