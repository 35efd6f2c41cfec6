"""Shrink a volume, restore it and score the result: microCTsmallpatchtest, wholevolumetest."""

from __future__ import annotations

import csv
import io
import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from data.degradation import Degradation, shrink
from data.geometry import shrunk_affine
from data.training_data import slice_digests
from data.volume import Volume
from data.windows import Domain, IntensityWindow
from data.writers import NiftiSliceWriter
from methods.loading import (
    TestModel,
    input_paths,
    load_model,
    refuse_existing,
    result_folders,
)
from methods.super_resolution import open_case, preview_slice
from models.super_resolver import SuperResolver
from util.errors import UserError
from util.files import write_json, write_text
from util.metrics import psnr, ssim
from util.pictures import best_inset, comparison_picture
from util.progress import progress
from util.resampling import area_average, enlarge
from util.run_record import write_run_record

BASELINES = {"nearest": 0, "linear": 1, "cubic": 3}  # orders of util.resampling.enlarge
METHODS = ("SR", *BASELINES)
DATA_RANGE = 2.0  # scores are taken on the network's scale, [-1, 1]
FIELDS = ("slice", "method", "psnr", "ssim")

Score = dict[str, float | int | str]


def micro_restoration(options: Namespace) -> None:
    """microCTsmallpatchtest: HR micro-CT, shrunk by 2^n, restored (the published evaluation)."""
    # The lung mask belongs to clinical CT; micro-CT is scored everywhere.
    restore_and_score(Namespace(**{**vars(options), "region": "all"}), "micro")


def clinical_restoration(options: Namespace) -> None:
    """wholevolumetest: clinical CT, shrunk by 2^n, restored (the public setting)."""
    restore_and_score(options, "clinical")


def restore_and_score(options: Namespace, domain: Domain) -> None:
    """Run the evaluation on every input volume and write volumes, scores and pictures."""
    model = load_model(options)
    paths = input_paths(options, model.scale, domain)
    folders = result_folders(paths, options.results_dir)
    names = output_names(domain)
    refuse_existing([folder / name for folder in folders for name in names], options.overwrite)
    cases = [open_case(path, options) for path in paths]
    for volume, mask in cases:
        if mask is not None and not any(section.any() for section in mask):
            raise UserError(
                f"{volume.source}: no slice shows lung, so nothing would be scored: give other "
                "--slices or --region all"
            )
    if not options.allow_training_data:
        for volume, _ in cases:
            refuse_training_data(volume, model)
    for (volume, mask), folder in zip(cases, folders, strict=True):
        window = model.windows.window_for(volume, domain)
        scores = restore_volume(
            volume,
            mask,
            model.resolver,
            window,
            options.degradation,
            folder,
            domain,
            lung_statistics=model.lung_statistics,
            overwrite=options.overwrite,
        )
        summary = summarise(scores)
        write_scores(folder / f"{domain}_scores.csv", scores)
        write_json(folder / f"{domain}_scores.json", {"total": summary, "slices": scores})
        write_run_record(
            folder / f"{domain}_run.json",
            vars(options),
            str(model.resolver.device),
            method=options.method,
            input=volume.source,
            outputs=[str(folder / name) for name in names],
            checkpoint=str(model.loaded.origin),
            checkpoint_step=model.loaded.step,
            window=window.as_dict(),
            norm_scope="lung" if model.lung_statistics else "slice",
            data_range=DATA_RANGE,
            scored="lung mask" if mask is not None else "whole slices",
            scores=summary,
        )
        print(f"\n{volume.name}: {volume.num_slices} slices, {options.degradation} degradation")
        print(format_table(summary))
        print(f"wrote {', '.join(str(folder / name) for name in names)}")


def output_names(domain: Domain) -> list[str]:
    """Files that one evaluated case leaves."""
    volumes = [f"{domain}_{role}.nii.gz" for role in ("HR", "LR", "SR")]
    return [*volumes, f"{domain}_scores.csv", f"{domain}_scores.json", f"{domain}_preview.png"]


def refuse_training_data(volume: Volume, model: TestModel) -> None:
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
    degradation: Degradation,
    folder: Path,
    domain: Domain,
    lung_statistics: bool = False,
    overwrite: bool = False,
) -> list[Score]:
    """Shrink, restore and score one volume; holds one slice at a time.

    Sizes that the scale does not divide are padded by repeating the last row and column before
    shrinking and cut after restoring, so nothing at the border is dropped.

    Args:
        volume: high resolution.
        mask: (z, y, x), scores are taken inside it; None for everywhere.
        resolver: enlarges a slice in [-1, 1].
        window: physical units to [-1, 1].
        degradation: how to shrink, see `data.degradation.shrink`.
        folder: for micro_HR, micro_LR, micro_SR (or clinical_...) and the picture.
        domain: first word of the file names.
        lung_statistics: whether norm statistics come from the mask instead of the whole slice.
        overwrite: whether they may replace existing ones.

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
    dtype = stored_type(volume)
    shown = preview_slice(volume, mask)
    scores: list[Score] = []
    panels: list[tuple[str, np.ndarray]] = []

    def writer(role: str) -> NiftiSliceWriter:
        path = folder / f"{domain}_{role}.nii.gz"
        return NiftiSliceWriter(path, sizes[role], affines[role], overwrite, dtype)

    with writer("HR") as high_writer, writer("LR") as low_writer, writer("SR") as sr_writer:
        for index in progress(range(slices), volume.name, unit="slice"):
            physical = volume.read_slice(index)
            high = window.to_unit(physical)
            padded = np.pad(high, ((0, -rows % scale), (0, -columns % scale)), mode="edge")
            low = shrink(padded, scale, degradation).clip(-1.0, 1.0)
            section = None if mask is None else mask[index]
            scope = low_mask(section, scale) if lung_statistics and section is not None else None
            restored = {"SR": resolver.upscale_slice(low, scope)}
            restored |= {name: enlarge(low, scale, order) for name, order in BASELINES.items()}
            restored = {
                name: image[:rows, :columns].clip(-1.0, 1.0) for name, image in restored.items()
            }
            if section is None or section.any():
                scores += score_slice(index, restored, high, section)
            high_writer.append(physical)
            low_writer.append(window.to_physical(low))
            sr_writer.append(window.to_physical(restored["SR"]))
            if index == shown:
                panels = [
                    (f"input, shrunk {scale} times", low),
                    ("cubic interpolation", restored["cubic"]),
                    ("super-resolution", restored["SR"]),
                    ("truth", high),
                ]
    # Only now, so that a broken run leaves no picture that looks like a result.
    comparison_picture(
        folder / f"{domain}_preview.png",
        panels,
        (-1.0, 1.0),
        best_inset(panels[-1][1]),
        f"{volume.name}, slice {shown} of {slices}, {degradation} degradation",
    )
    return scores


def low_mask(mask: np.ndarray, scale: int) -> np.ndarray | None:
    """Mask (rows, columns) on the shrunk grid: blocks with any lung; None where there is none."""
    rows, columns = mask.shape
    padded = np.pad(mask != 0, ((0, -rows % scale), (0, -columns % scale)))
    shrunk = area_average(padded, scale) > 0
    return shrunk if shrunk.any() else None


def stored_type(volume: Volume) -> DTypeLike:
    """Type of the written volumes: 8 and 16 bit integers stay so, all else becomes float32."""
    plain = volume.slope == 1.0 and volume.intercept == 0.0
    stored: np.dtype = volume.array.dtype
    if stored.kind in "iu" and stored.itemsize <= 2 and plain:
        return stored.newbyteorder("=")
    return np.float32


def score_slice(
    index: int, restored: dict[str, np.ndarray], truth: np.ndarray, mask: np.ndarray | None
) -> list[Score]:
    """PSNR and SSIM of each method on one slice in [-1, 1].

    Both are taken after a shift to [0, 2], so that the window's low end is SSIM's zero.
    """
    reference = truth + 1.0
    rows: list[Score] = []
    for name, image in restored.items():
        shifted = image + 1.0
        rows.append(
            {
                "slice": index,
                "method": name,
                "psnr": psnr(shifted, reference, DATA_RANGE, mask),
                "ssim": ssim(shifted, reference, DATA_RANGE, mask),
                "pixels": int(truth.size if mask is None else np.count_nonzero(mask)),
            }
        )
    return rows


def summarise(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Total scores by method: PSNR of the pooled squared error, mean SSIM over the slices."""
    summary = {}
    for method in METHODS:
        rows = [row for row in scores if row["method"] == method]
        pixels = np.array([row["pixels"] for row in rows], dtype=np.float64)
        errors = np.array([DATA_RANGE**2 / 10 ** (float(row["psnr"]) / 10) for row in rows])
        error = float((errors * pixels).sum() / pixels.sum())
        total = 10 * math.log10(DATA_RANGE**2 / error) if error > 0 else math.inf
        mean_ssim = float(np.mean([float(row["ssim"]) for row in rows]))
        summary[method] = {"psnr": total, "ssim": mean_ssim}
    return summary


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """One CSV row a slice and method."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, [*FIELDS, "pixels"], lineterminator="\n")
    table.writeheader()
    table.writerows(scores)
    write_text(path, stream.getvalue())


def format_table(summary: dict[str, dict[str, float]]) -> str:
    """A plain table for the screen."""
    lines = [f"{'method':<10}{'PSNR (dB)':>12}{'SSIM':>10}"]
    lines += [
        f"{name:<10}{row['psnr']:>12.2f}{row['ssim']:>10.4f}" for name, row in summary.items()
    ]
    return "\n".join(lines)
