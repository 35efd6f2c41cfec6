"""What an earlier run left of a case: whether it is finished, and how it is resumed with equal
settings."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.volumes.volume import Volume
from data.windows import IntensityWindow
from data.writing.journal import differences
from data.writing.partial_file import begun_with, forget_journal, partial_files
from methods.loading import LoadedModel
from models.inference.super_resolver import SuperResolver
from util.devices import arithmetic_name
from util.errors import UserError
from util.files import plain

DRAWN = ("texture", "samples")  # settings by which the result shows what is drawn by chance


@dataclass(frozen=True)
class UpscaleSettings:
    """How a volume is super-resolved."""

    # take norm statistics from the lung's pixels instead of the whole slice
    lung_statistics: bool = False
    volume_statistics: bool = False  # pool them over all slices
    consistency: bool = False  # correct the result so that its area average is the input
    # self_ensemble, uncertainty: see `models.inference.case_enlarger.CaseEnlarger`
    self_ensemble: bool = False
    uncertainty: bool = False
    texture: float = 0.0  # its share, 0 to 1
    samples: int = 0  # of texture, whose mean is the result; 0 for none
    overwrite: bool = False  # whether existing results may be replaced
    resume: bool = False  # resume the partial files of an interrupted run
    output_name: str = "SR.nii.gz"  # of the result, .nii or .nii.gz
    # further facts that the voxels depend on, for the key of the partial files
    determined_by: Mapping[str, Any] = field(default_factory=dict)

    def key(
        self, volume: Volume, mask: np.ndarray | None, window: IntensityWindow
    ) -> dict[str, Any]:
        """All that the voxels of a result depend on: what a run that resumes it must share."""
        names = ("lung_statistics", "volume_statistics", "consistency", "self_ensemble")
        return {
            **self.determined_by,
            "input, --slices or --region": content_digest(volume, mask),
            **window.as_dict(),
            **{name: getattr(self, name) for name in names},
            # Where they are used: earlier versions did not know them.
            **{name: value for name in DRAWN if (value := getattr(self, name))},
        }


def upscale_settings(model: LoadedModel, options: Namespace) -> UpscaleSettings:
    """How the options want a volume to be super-resolved."""
    # Everything that the voxels depend on besides the input goes into the key of the partial file.
    determined_by = {
        "weights": model.loaded.digest,
        "compile": options.compile,
        **rounding_facts(model.resolver),
    }
    if model.resolver.has_texture:  # also where none is asked for: --uncertainty may be added
        determined_by |= {"spread": model.resolver.spread, "numpy": np.__version__}
    return UpscaleSettings(
        lung_statistics=model.lung_statistics,
        volume_statistics=model.norm_scope == "volume",
        consistency=options.consistency,
        self_ensemble=options.self_ensemble,
        uncertainty=options.uncertainty,
        texture=options.texture,
        samples=options.samples,
        # A result that --resume finds without its run.json is of a run that was cut off.
        overwrite=options.overwrite or options.resume,
        resume=options.resume,
        output_name=options.output_name,
        determined_by=determined_by,
    )


@dataclass(frozen=True)
class CasePlan:
    """How a case is worked on."""

    settings: UpscaleSettings  # how it is super-resolved
    key: dict[str, Any]  # what its voxels depend on
    is_finished: bool = False  # an earlier run has left all of it, so nothing is to be computed


def plan_case(
    volume: Volume,
    mask: np.ndarray | None,
    window: IntensityWindow,
    folder: Path,
    names: list[str],
    model: LoadedModel,
    options: Namespace,
) -> CasePlan:
    """Decide whether a case begins anew, goes on where an earlier run stopped, or is finished.

    Without --max_memory the memory of a slice is what is free now, or, resumed, what the earlier
    run had.

    Args:
        volume, mask, window: of the case.
        folder: of its results.
        names: of its files besides run.json; the result first.
        model: its resolver gets the plan's memory.
        options: of the run.

    Raises:
        UserError: the earlier run was of another kind, or had more memory than is free.
    """
    resolver, result = model.resolver, folder / names[0]
    if options.max_memory is None:
        resolver.max_memory = resolver.free_budget()
        if options.resume:
            plan_as_before(resolver, folder, names[0])
    settings = upscale_settings(model, options)
    key = settings.key(volume, mask, window)
    if not options.resume:
        if begun_with(result) is not None:
            print(f"{result}.partial of an interrupted run is replaced: --resume keeps it")
        return CasePlan(settings, key)
    if is_finished(folder, names, key):
        forget_journals(folder, names)
        print(f"{result} is finished: nothing to resume")
        return CasePlan(settings, key, is_finished=True)
    if options.max_memory is None:
        columns, rows, _ = volume.size
        refuse_without_memory(resolver, rows, columns, result)
    return CasePlan(settings, key)


def content_digest(volume: Volume, mask: np.ndarray | None) -> str:
    """Fingerprint of all voxels in HU and of the mask, 32 hex digits."""
    digest = blake2b(digest_size=16)
    for index in range(volume.num_slices):
        digest.update(np.ascontiguousarray(volume.read_slice(index)).data)
        if mask is not None:
            digest.update(np.packbits(mask[index] != 0).data)
    return digest.hexdigest()


def is_finished(folder: Path, names: list[str], key: Mapping[str, Any]) -> bool:
    """Whether an earlier run of the same key has left every file of a case, and no partial one.

    Args:
        folder: of the case. names: its files besides run.json; the result first. key: what
        determines the voxels, see `methods.super_resolution.resuming.UpscaleSettings.key`.

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
    """End what `--resume` could resume: run.json now vouches for the files."""
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
        "memory_format": "torch.channels_last",
        "threads": torch.get_num_threads(),
        "device": arithmetic_name(resolver.device),
        "torch": torch.__version__,
        "openvino": openvino,
    }


def plan_as_before(resolver: SuperResolver, folder: Path, name: str) -> None:
    """Give the resolver the memory that the run to be resumed had, if there is one.

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
