"""smallpatchtest: clinical CT in, super-resolved CT out, in HU and in its place."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.volumes.geometry import is_sheared
from data.volumes.names import is_mask_name
from data.volumes.volume import Volume
from data.windows import IntensityWindow
from data.writing.exports import remove_exports
from methods.inputs import check_window, mask_words, open_case, run_method
from methods.loading import LoadedModel
from methods.pages.result_page import PAGE, may_fail
from methods.result_size import refuse_without_room
from methods.super_resolution.companions import (
    check_exports,
    complete_exports,
    drawn_words,
    export_names,
    show_result,
    volume_ending,
    write_exports,
)
from methods.super_resolution.resuming import forget_journals, plan_case, recorded
from methods.super_resolution.volume_upscaling import Upscaled, upscale_volume
from methods.trust_report import check_scan, judge
from util.errors import UserError
from util.files import PARTIAL_ENDING
from util.images.pictures import best_inset, comparison_picture
from util.images.resampling import enlarge
from util.interrupt import StopRequest
from util.run_record import write_run_record

INT16_BYTES = 2


def super_resolution(options: Namespace) -> int:
    """Super-resolve every input volume, slice by slice.

    Writes clinical.nii.gz (the input on its own grid), SR.nii.gz (2^n times finer in plane, int16
    HU, corners in place), with --uncertainty uncertainty.nii.gz, preview.png and run.json into
    --results_dir; with several inputs each into a folder of its case name.

    Returns:
        Exit code, see `methods.cohort.run_cases`.
    """
    if is_mask_name(options.output_name):
        raise UserError(
            f"--output_name is {options.output_name!r}, expected a name that does not end as those "
            "of masks do: it would be taken for one"
        )
    names = [*output_names(options), *export_names(options)]
    check = partial(check_exports, options)
    return run_method(options, "clinical", names, super_resolve_case, check=check)


def super_resolve_case(path: Path, folder: Path, model: LoadedModel, options: Namespace) -> None:
    """Super-resolve one volume into its folder."""
    started = time.monotonic()
    names = output_names(options)
    volume, mask = open_case(path, options, "clinical")
    if options.output_format == "dicom" and is_sheared(volume.affine):
        raise UserError(
            f"{volume.source} has axes that do not stand at right angles, which no DICOM series "
            "can hold: leave --output_format dicom out, or resample the volume"
        )
    window = model.windows.window_for(volume, "clinical")
    check_window(volume, window)
    plan = plan_case(volume, mask, window, folder, names, model, options)
    if plan.is_finished:
        complete_exports(options, folder, path)
        if not (folder / PAGE).is_file():
            show_result(options, folder, recorded(folder / "run.json"), volume, mask, window)
        return
    fine = INT16_BYTES * volume.array.size * model.scale**2
    files = fine * (1 + options.uncertainty) + INT16_BYTES * volume.array.size
    is_packed = options.output_name.endswith(".gz")
    derived = fine * (options.output_format == "dicom")
    begun = sum(one.stat().st_size for one in folder.glob(f"*{PARTIAL_ENDING}"))
    room = (files, derived, begun) if is_packed else (0, files + derived, begun)
    refuse_without_room(folder, volume, model.scale, *room)
    seen = check_scan(volume, mask, model)
    picture = folder / "preview.png"
    # Not as an exception from anywhere: a lock or a finaliser in Python's own code may lose it.
    with StopRequest() as stop:
        try:
            made = upscale_volume(
                volume, mask, model.resolver, window, folder, plan.settings, plan.key, stop
            )
        except KeyboardInterrupt:
            print(
                f"stopped: {folder / names[0]}.partial holds the slices so far; the same command "
                "with --resume goes on",
                file=sys.stderr,
            )
            raise
        remove_exports(folder / names[0], path)  # they show the result that was replaced
        # Only now, so that a broken run leaves no picture that looks like a result.
        words = f" A share of {options.texture:g} of it is drawn by chance." * (options.texture > 0)
        with may_fail("picture", options.debug):
            shown, scale = made.preview, model.scale
            draw_preview(picture, volume, made.shown, *shown, window, scale, mask, words)
        seconds = time.monotonic() - started
        section = None if mask is None else mask[made.shown]
        image, result = made.preview
        drawn = options.texture > 0 or options.samples > 0
        if drawn:  # no two draws of texture are alike, and none claims to be
            result = made.best(image, section)
        seen["trust"] = judge(made.best, image, result, section, volume.printed_name, drawn)
        record = record_case(folder, options, model, volume, window, seconds, made, plan.key, seen)
        forget_journals(folder, names)
        print(f"wrote {folder / names[0]}; {picture} shows a slice of it")
        # After the record: whatever befalls them, the result stays a finished one.
        write_exports(options, folder, path)
    show_result(options, folder, record, volume, mask, window)
    if stop.requested is not None:  # came when all slices were there: the case was finished first
        raise KeyboardInterrupt


def output_names(options: Namespace) -> list[str]:
    """Files that `--resume` looks for besides run.json; the result first."""
    ending = volume_ending(options)
    spread = [f"uncertainty{ending}"] if options.uncertainty else []
    return [options.output_name, f"clinical{ending}", *spread, "preview.png"]


def draw_preview(
    path: Path,
    volume: Volume,
    index: int,
    image: np.ndarray,
    result: np.ndarray,
    window: IntensityWindow,
    scale: int,
    mask: np.ndarray | None,
    more: str = "",
) -> None:
    """Input, cubic interpolation and SR side by side with the same zoomed inset; `more` to say."""
    cubic = enlarge(image, scale, order=3)
    # The lung, where SR stands; the chest wall beside it would be the strongest detail.
    shown = None if mask is None else mask[index].repeat(scale, 0).repeat(scale, 1)
    comparison_picture(
        path,
        [
            (f"input, {volume.spacing[0]:.3g} mm", image),
            ("cubic interpolation", cubic),
            (f"super-resolution, {volume.spacing[0] / scale:.3g} mm", result),
        ],
        (window.low, window.high),
        best_inset(np.clip(result, window.low, window.high), region=shown),
        f"{volume.title}, slice {index} of {volume.num_slices}, window {window.low:g} to "
        f"{window.high:g} HU. Detail below the input's resolution is inferred, not measured.{more}",
    )


def record_case(
    folder: Path,
    options: Namespace,
    model: LoadedModel,
    volume: Volume,
    window: IntensityWindow,
    seconds: float,
    made: Upscaled,
    key: Mapping[str, Any],
    seen: Mapping[str, Any],
) -> dict[str, Any]:
    """Write run.json of one case, with what was `seen` of scan and image; returns what it says."""
    facts: dict[str, Any] = {
        "method": options.method,
        "input": volume.source,
        "lung_mask": mask_words(volume, options),
        "outputs": [
            str(folder / name) for name in (*output_names(options), *export_names(options))
        ],
        **model.facts(),
        "drawn": drawn_words(options) or None,
        "window": window.as_dict(),
        "determined_by": key,
        # Of the slices of this run: those of an interrupted one that was resumed are not timed.
        "consistency_error_hu": made.consistency.as_dict(),
        **seen,
        "slices_resumed": volume.num_slices - made.computed,
        "seconds": round(seconds, 3),
        "seconds_per_slice": round(seconds / made.computed, 4) if made.computed else None,
    }
    device = str(model.resolver.device)
    return write_run_record(folder / "run.json", vars(options), device, **facts)
