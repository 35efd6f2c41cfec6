"""What an earlier run left of a case: whether it is finished, and how it is gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from data.writing.journal import differences
from data.writing.partial_file import begun_with, forget_journal, partial_files
from models.inference.super_resolver import SuperResolver
from util.devices import arithmetic_name
from util.errors import UserError
from util.files import plain


def is_finished(folder: Path, names: list[str], key: Mapping[str, Any]) -> bool:
    """Whether an earlier run of the same key has left every file of a case, and no partial one.

    Args:
        folder: of the case. names: its files besides run.json; the result first. key: what
        determines the voxels, see `methods.super_resolution.upscale_settings.UpscaleSettings.key`.

    Raises:
        UserError: the case was finished by a run of another key.
    """
    record = folder / "run.json"
    there = [name for name in names if (folder / name).exists()]
    left = [partial_files(folder / name) for name in names]
    if not record.exists() or any(partial.exists() for partial, _ in left):
        return False
    if any(journal.exists() for _, journal in left) and not _same_run(record, key):
        return False  # the files are newer: their run was cut off before it recorded them
    stored = recorded(record).get("determined_by")
    if not isinstance(stored, dict):
        unlike = f"{record} does not say which (an older version wrote it, or it is damaged)"
    else:
        unlike = differences(stored, plain(key))
    if unlike and there:
        raise UserError(
            f"{folder / there[0]} was made by another kind of run: {unlike}: --overwrite without "
            "--resume replaces it, --results_dir FOLDER writes elsewhere"
        )
    return there == names and _covers(record, names)


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


def plan_as_before(resolver: SuperResolver, folder: Path, name: str) -> None:
    """Give the resolver the memory that the run to be taken up had, if there is one.

    How much memory a slice may take decides which maps are computed anew, and so the last bit of
    the result (models/inference/memory_plan.py). Free memory is another one each time.

    Args:
        resolver: its `max_memory` and bands are set.
        folder: of the case.
        name: of its result.
    """
    begun = begun_with(folder / name)
    left = recorded(folder / "run.json").get("determined_by") if begun is None else begun["run"]
    before = left if isinstance(left, dict) else {}
    memory, bands = before.get("max_memory"), before.get("band_values")
    if isinstance(memory, int) and isinstance(bands, int):
        resolver.max_memory = memory
        resolver.engine.band_values = bands
        highest = resolver.engine.recomputed_values
        resolver.memory = replace(resolver.memory, band_values=highest)


def refuse_without_memory(resolver: SuperResolver, rows: int, columns: int, path: Path) -> None:
    """Refuse to go on with a plan of an earlier run that the free memory has no room for.

    Args:
        resolver: after `plan_as_before`.
        rows, columns: of the input slices.
        path: of the result.

    Raises:
        UserError: so much is not free now.
    """
    kept = resolver.memory.levels_to_keep(rows, columns, resolver.max_memory)
    needed, free = resolver.memory.needed(rows * columns, kept), resolver.free_budget()
    if needed > free:
        raise UserError(
            f"{path} was begun with {needed / 1e9:.2f} GB for a slice, the free memory allows "
            f"{free / 1e9:.2f} GB: end other programs, or run without --resume to start anew"
        )


def recorded(record: Path) -> dict[str, Any]:
    """What a run record holds; nothing where there is none that can be read."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _same_run(record: Path, key: Mapping[str, Any]) -> bool:
    stored = recorded(record).get("determined_by")
    return isinstance(stored, dict) and not differences(stored, plain(key))


def _covers(record: Path, names: list[str]) -> bool:
    """Whether a record tells of all these files: others beside it are of another run."""
    outputs = recorded(record).get("outputs")
    return isinstance(outputs, list) and set(names) <= {Path(str(path)).name for path in outputs}
