"""smallpatchtest: clinical CT in, super-resolved CT out, in HU and in its place."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from data.geometry import enlarged_affine
from data.readers import read_volume
from data.training_data import open_with_lung_mask
from data.volume import Volume, parse_slices
from data.windows import IntensityWindow
from data.writers import NiftiSliceWriter
from methods.compose import compose_slice
from methods.loading import (
    TestModel,
    input_paths,
    load_model,
    refuse_existing,
    result_folders,
)
from models.super_resolver import SuperResolver
from util.pictures import best_inset, comparison_picture
from util.progress import progress
from util.resampling import enlarge
from util.run_record import write_run_record

OUTPUTS = ("clinical.nii.gz", "SR.nii.gz", "preview.png")


def super_resolution(options: Namespace) -> None:
    """Super-resolve every input volume, slice by slice.

    Writes clinical.nii.gz (the input on its own grid), SR.nii.gz (2^n times finer in plane, int16
    HU, corners in place), preview.png and run.json into --results_dir; with several inputs each
    into a folder of its case name.
    """
    model = load_model(options)
    paths = input_paths(options, model.scale, "clinical")
    folders = result_folders(paths, options.results_dir)
    refuse_existing([folder / name for folder in folders for name in OUTPUTS], options.overwrite)
    cases = [open_case(path, options) for path in paths]
    for (volume, mask), folder in zip(cases, folders, strict=True):
        started = time.monotonic()
        window = model.windows.window_for(volume, "clinical")
        upscale_volume(
            volume,
            mask,
            model.resolver,
            window,
            folder,
            lung_statistics=model.lung_statistics,
            overwrite=options.overwrite,
        )
        record_case(folder, options, model, volume, window, time.monotonic() - started)
        print(f"wrote {folder / 'SR.nii.gz'}; {folder / 'preview.png'} shows a slice of it")


def open_case(path: Path, options: Namespace) -> tuple[Volume, np.ndarray | None]:
    """Open one input with its lung mask (None where --region all asks for none)."""
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    if options.region == "lung":
        folder = Path(options.maskdatafolder) if options.maskdatafolder else None
        return open_with_lung_mask(path, cache_dir, folder, options.micro_spacing, options.slices)
    volume = read_volume(path, cache_dir, options.micro_spacing)
    if options.slices is not None:
        volume = volume.select_slices(*parse_slices(options.slices, volume.num_slices))
    return volume, None


def upscale_volume(
    volume: Volume,
    mask: np.ndarray | None,
    resolver: SuperResolver,
    window: IntensityWindow,
    folder: Path,
    lung_statistics: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the super-resolved volume and its companions; holds one slice at a time.

    Args:
        volume: clinical CT.
        mask: lung mask (z, y, x), or None to use super-resolution everywhere.
        resolver: enlarges a slice in [-1, 1].
        window: HU to [-1, 1].
        folder: for the outputs.
        lung_statistics: whether norm statistics come from the lung instead of the whole slice.
        overwrite: whether they may replace existing ones.
    """
    scale = resolver.scale
    columns, rows, slices = volume.size
    shown = preview_slice(volume, mask)
    preview: dict[str, np.ndarray] = {}
    with (
        NiftiSliceWriter(
            folder / "clinical.nii.gz", volume.size, volume.affine, overwrite
        ) as clinical_writer,
        NiftiSliceWriter(
            folder / "SR.nii.gz",
            (columns * scale, rows * scale, slices),
            enlarged_affine(volume.affine, scale),
            overwrite,
        ) as writer,
    ):
        for index in progress(range(slices), volume.name, unit="slice"):
            image = volume.read_slice(index)
            section = None if mask is None else mask[index]
            interpolated = enlarge(image, scale, order=3)
            result = interpolated
            if section is None or section.any():
                scope = section if lung_statistics else None
                unit = resolver.upscale_slice(window.to_unit(image), scope)
                enlarged = window.to_physical(unit)
                result = compose_slice(enlarged, interpolated, window, section)
            clinical_writer.append(image)
            writer.append(result)
            if index == shown:
                preview = {"image": image, "result": result}
    # Only now, so that a broken run leaves no picture that looks like a result.
    draw_preview(
        folder / "preview.png", volume, shown, preview["image"], preview["result"], window, scale
    )


def preview_slice(volume: Volume, mask: np.ndarray | None) -> int:
    """The slice with most lung; without a mask the middle one."""
    if mask is None:
        return volume.num_slices // 2
    return int(np.argmax([np.count_nonzero(section) for section in mask]))


def draw_preview(
    path: Path,
    volume: Volume,
    index: int,
    image: np.ndarray,
    result: np.ndarray,
    window: IntensityWindow,
    scale: int,
) -> None:
    """Input, cubic interpolation and SR side by side with the same zoomed inset."""
    cubic = enlarge(image, scale, order=3)
    comparison_picture(
        path,
        [
            (f"input, {volume.spacing[0]:.3g} mm", image),
            ("cubic interpolation", cubic),
            (f"super-resolution, {volume.spacing[0] / scale:.3g} mm", result),
        ],
        (window.low, window.high),
        best_inset(result),
        f"{volume.name}, slice {index} of {volume.num_slices}, window {window.low:g} to "
        f"{window.high:g} HU. Detail below the input's resolution is inferred, not measured.",
    )


def record_case(
    folder: Path,
    options: Namespace,
    model: TestModel,
    volume: Volume,
    window: IntensityWindow,
    seconds: float,
) -> None:
    """Write run.json of one case."""
    facts: dict[str, Any] = {
        "method": options.method,
        "input": volume.source,
        "outputs": [str(folder / name) for name in OUTPUTS],
        "checkpoint": str(model.loaded.origin),
        "checkpoint_step": model.loaded.step,
        "window": window.as_dict(),
        "scale": model.scale,
        "norm_scope": "lung" if model.lung_statistics else "slice",
        "seconds": round(seconds, 3),
        "seconds_per_slice": round(seconds / volume.num_slices, 4),
    }
    write_run_record(folder / "run.json", vars(options), str(model.resolver.device), **facts)
