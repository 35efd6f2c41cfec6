"""Shrink a volume, restore it and score the result: microCTsmallpatchtest, wholevolumetest."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from data.lung_mask import preview_slice
from data.opening import slice_digests
from data.volumes.geometry import shrunk_affine
from data.volumes.volume import Volume
from data.windows import Domain, IntensityWindow
from data.writing.nifti_writer import NiftiSliceWriter
from methods.inputs import check_window, mask_words, open_case, run_method
from methods.loading import LoadedModel
from methods.pages.case_view import case_viewer
from methods.pages.result_images import CONSISTENT, restored_images
from methods.pages.result_page import Section, make_page, may_fail
from methods.restoration.scores import (
    DATA_RANGE,
    Score,
    format_table,
    score_nodes,
    score_slice,
    summarise,
    write_scores,
)
from methods.restoration.shrunk_slices import (
    RestorationSettings,
    ShrunkSlice,
    restore_slices,
    shrink_slices,
    statistics_job,
)
from methods.result_size import refuse_without_room
from models.inference.case_enlarger import CaseEnlarger
from models.inference.super_resolver import SuperResolver
from util.errors import UserError
from util.files import write_json
from util.images.metrics import refuse_too_small
from util.images.pictures import best_inset, comparison_picture
from util.images.resampling import back_project, enlarge
from util.pages.viewer_page import Viewer
from util.pipeline import ahead
from util.progress import progress
from util.run_record import write_run_record

BASELINES = {"nearest": 0, "linear": 1, "cubic": 3}  # orders of util.images.resampling.enlarge


def micro_restoration(options: Namespace) -> int:
    """microCTsmallpatchtest: HR micro-CT, shrunk by 2^n, restored (the published evaluation)."""
    # The lung mask belongs to clinical CT; micro-CT is scored everywhere.
    return restore_and_score(Namespace(**{**vars(options), "region": "all"}), "micro")


def clinical_restoration(options: Namespace) -> int:
    """wholevolumetest: clinical CT, shrunk by 2^n, restored (the public setting)."""
    return restore_and_score(options, "clinical")


def restore_and_score(options: Namespace, domain: Domain) -> int:
    """Run the evaluation on every input volume; returns the exit code."""

    def work(path: Path, folder: Path, model: LoadedModel, options: Namespace) -> None:
        score_case(path, folder, model, options, domain)

    return run_method(options, domain, output_names(domain), work, f"{domain}_")


def score_case(
    path: Path, folder: Path, model: LoadedModel, options: Namespace, domain: Domain
) -> None:
    """Evaluate one volume and write volumes, scores, picture and record into its folder."""
    volume, mask = open_case(path, options, domain)
    refuse_too_small(volume.size[1::-1], volume.source)
    if mask is not None and not any(section.any() for section in mask):
        raise UserError(
            f"{volume.source}: no slice shows lung, so nothing would be scored: give other "
            "--slices or --region all"
        )
    if not options.allow_training_data:
        refuse_training_data(volume, model)
    window = model.windows.window_for(volume, domain)
    check_window(volume, window)
    stored = np.dtype(stored_type(volume.array.dtype, volume.slope, volume.intercept))
    low = volume.array.size / model.scale**2
    refuse_without_room(folder, volume, 1, stored.itemsize * (2 * volume.array.size + low), 0)
    settings = RestorationSettings(
        options.degradation,
        lung_statistics=model.lung_statistics,
        volume_statistics=model.norm_scope == "volume",
        consistency=options.consistency,
        self_ensemble=options.self_ensemble,
        overwrite=options.overwrite,
    )
    scores = restore_volume(volume, mask, model.resolver, window, folder, domain, settings)
    summary = summarise(scores)
    names = output_names(domain)
    write_scores(folder / f"{domain}_scores.csv", scores)
    write_json(folder / f"{domain}_scores.json", {"total": summary, "slices": scores})
    record = write_run_record(
        folder / f"{domain}_run.json",
        vars(options),
        str(model.resolver.device),
        method=options.method,
        input=volume.source,
        lung_mask=None if mask is None else mask_words(volume, options),
        outputs=[str(folder / name) for name in names],
        **model.facts(),
        window=window.as_dict(),
        data_range=DATA_RANGE,
        scored="lung mask" if mask is not None else "whole slices",
        scores=summary,
    )
    print(f"\n{volume.printed_name}: {volume.num_slices} slices, {options.degradation} degradation")
    print(format_table(summary))
    if summary["SR"]["psnr"] < summary["cubic"]["psnr"]:
        print(
            "warning: cubic spline interpolation is better than this model here: was it trained on "
            f"such data, and in this window ({window.low:g} to {window.high:g})? docs/training.md, "
            '"Your own data", tells how to adapt it',
            file=sys.stderr,
        )
    print(f"wrote {', '.join(str(folder / name) for name in names)}")

    def viewer(page_bytes: float) -> Viewer:
        shown = preview_slice(volume, mask)
        images = restored_images(folder, domain, mask, window, model.scale, shown)
        return case_viewer(images, page_bytes)

    sections = [Section("Scores", score_nodes(summary, scores))]
    make_page(options, folder, record, viewer, sections, folder / f"{domain}_preview.png")


def output_names(domain: Domain) -> list[str]:
    """Files that one evaluated case leaves."""
    volumes = [f"{domain}_{role}.nii.gz" for role in ("HR", "LR", "SR")]
    return [*volumes, f"{domain}_scores.csv", f"{domain}_scores.json", f"{domain}_preview.png"]


def refuse_training_data(volume: Volume, model: LoadedModel) -> None:
    """Refuse slices that the model was trained on, by their content.

    Raises:
        UserError: at least one slice is among the checkpoint's training slices.
    """
    digests = slice_digests([volume])
    seen = model.loaded.training_digests.intersection(digests)
    if seen:
        raise UserError(
            f"{volume.source}: {len(seen)} of {volume.num_slices} slices were trained on, "
            "expected unseen ones: choose others with --input or --slices, or give "
            "--allow_training_data"
        )


def restore_volume(
    volume: Volume,
    mask: np.ndarray | None,
    resolver: SuperResolver,
    window: IntensityWindow,
    folder: Path,
    domain: Domain,
    settings: RestorationSettings,
) -> list[Score]:
    """Shrink, restore and score one volume; holds a few slices at a time.

    Sizes that the scale does not divide are padded by repeating the last row and column before
    shrinking and cut after restoring, so nothing at the border is dropped.

    Args:
        volume: high resolution.
        mask: (z, y, x), scores are taken inside it; None for everywhere.
        resolver: enlarges a slice in [-1, 1].
        window: physical units to [-1, 1].
        folder: for micro_HR, micro_LR, micro_SR (or clinical_...) and the picture.
        domain: first word of the file names.
        settings: how.

    Returns:
        One row a slice and method with PSNR in dB and SSIM.
    """
    scale = resolver.scale
    columns, rows, slices = volume.size
    low_size = (math.ceil(columns / scale), math.ceil(rows / scale), slices)
    affines = {
        "HR": volume.affine,
        "LR": shrunk_affine(volume.affine, scale),
        "SR": volume.affine,
    }
    sizes = {"HR": volume.size, "LR": low_size, "SR": volume.size}
    dtype = stored_type(volume.array.dtype, volume.slope, volume.intercept)
    shown = preview_slice(volume, mask)
    scores: list[Score] = []
    panels: list[tuple[str, np.ndarray]] = []
    enlarger = CaseEnlarger(resolver, settings.self_ensemble)

    def writer(role: str) -> NiftiSliceWriter:
        path = folder / f"{domain}_{role}.nii.gz"
        return NiftiSliceWriter(path, sizes[role], affines[role], settings.overwrite, dtype)

    def shrunk() -> Iterator[ShrunkSlice]:
        return ahead(shrink_slices(volume, mask, window, settings.degradation, scale))

    if settings.volume_statistics:
        enlarger.gather(lambda: (statistics_job(item, settings, scale) for item in shrunk()))
    computed = ahead(restore_slices(shrunk(), enlarger, settings, scale))
    with (
        writer("HR") as high_writer,
        writer("LR") as low_writer,
        writer("SR") as sr_writer,
        closing(computed),
    ):
        for item, enlarged in progress(computed, volume.printed_name, unit="slice", total=slices):
            restored = {"SR": enlarged.unit}
            if settings.consistency:
                restored[CONSISTENT] = back_project(enlarged.unit, item.low, scale)
            written = CONSISTENT if settings.consistency else "SR"
            restored |= {name: enlarge(item.low, scale, order) for name, order in BASELINES.items()}
            restored = {
                name: image[:rows, :columns].clip(window.unit_low, 1.0)
                for name, image in restored.items()
            }
            if item.section is None or item.section.any():
                scored = {name: window.standard(image) for name, image in restored.items()}
                truth = window.standard(item.high)
                scores += score_slice(item.index, scored, truth, item.section)
            high_writer.append(item.physical)
            low_writer.append(window.to_physical(item.low))
            sr_writer.append(window.to_physical(restored[written]))
            if item.index == shown:
                panels = [
                    (f"input, shrunk {scale} times", item.low),
                    ("cubic interpolation", restored["cubic"]),
                    ("super-resolution", restored[written]),
                    ("truth", item.high),
                ]
    # Only now, so that a broken run leaves no picture that looks like a result.
    with may_fail("picture"):
        comparison_picture(
            folder / f"{domain}_preview.png",
            panels,
            (window.unit_low, 1.0),
            best_inset(panels[-1][1]),
            f"{volume.title}, slice {shown} of {slices}, {settings.degradation} degradation",
        )
    return scores


def stored_type(stored: np.dtype, slope: float, intercept: float) -> DTypeLike:
    """Type of the written volumes: 8 and 16 bit integers stay so, all else becomes float32."""
    plain = slope == 1.0 and intercept == 0.0
    if stored.kind in "iu" and stored.itemsize <= 2 and plain:
        return stored.newbyteorder("=")
    return np.float32
