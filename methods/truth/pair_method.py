"""pairtest: super-resolution against the truth of registered pairs of one's own."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from data.opening import open_with_lung_mask, spacing_for
from data.truth_case import LABELS, TruthCase
from data.volumes.geometry import shrunk_affine
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW
from methods.inputs import check_window
from methods.truth.benchmark import Benchmark, refuse_outputs
from methods.truth.models import common_scale, load_models, model_rows
from methods.truth.opponents import INTERPOLATIONS
from util.errors import UserError

REGISTERED = 0.5  # input pixels by which corners may lie apart, where both files say where they are


def pair_benchmark(options: Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    refuse_outputs(options)
    inputs, truths = find_volumes(options.input), find_volumes(options.truth)
    if len(inputs) != len(truths):
        raise UserError(
            f"--input names {len(inputs)} volumes and --truth {len(truths)}: give one truth for "
            "each input, in the same order"
        )
    models = load_models(options)
    scale = common_scale(models)
    methods = [*INTERPOLATIONS, *model_rows(models, options)]
    benchmark = Benchmark(options, models, methods, len(inputs))
    for path, truth in zip(inputs, truths, strict=True):
        benchmark.add(read_pair(path, truth, scale, options))
    benchmark.write([f"{path} against {truth}" for path, truth in zip(inputs, truths, strict=True)])
    return 0


def read_pair(path: Path, truth_path: Path, scale: int, options: Namespace) -> TruthCase:
    """A clinical volume and its truth, which shows the same field `scale` times finer in plane.

    Raises:
        UserError: they do not, or no slice shows lung.
    """
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    folder = Path(options.maskdatafolder) if options.maskdatafolder else None
    if options.region == "lung":
        volume, mask = open_with_lung_mask(path, cache_dir, folder, options.micro_spacing)
    else:
        spacing = spacing_for(path, "clinical", options.micro_spacing)
        volume, mask = read_volume(path, cache_dir, spacing), None
    truth = read_volume(truth_path, cache_dir, options.micro_spacing)
    refuse_unregistered(volume, truth, scale)
    check_window(volume, CLINICAL_WINDOW)
    check_window(truth, CLINICAL_WINDOW)
    inside = np.ones(volume.array.shape, bool) if mask is None else np.asarray(mask) != 0
    if not inside.any():
        raise UserError(
            f"{volume.source}: no slice shows lung, so nothing would be scored: give another mask "
            "or --region all"
        )
    fine = np.stack([truth.read_slice(index) for index in range(truth.num_slices)])
    labels = np.where(inside, LABELS["parenchyma"], LABELS["outside"]).astype(np.uint8)
    return TruthCase(
        volume.name,
        "pair",
        np.stack([volume.read_slice(index) for index in range(volume.num_slices)]),
        inside,
        fine,
        fine,
        labels.repeat(scale, axis=1).repeat(scale, axis=2),
        truth.affine,
        scale,
    )


def refuse_unregistered(volume: Volume, truth: Volume, scale: int) -> None:
    """Refuse a truth that cannot show the same field.

    Raises:
        UserError: says by what.
    """
    columns, rows, slices = volume.size
    wanted = (columns * scale, rows * scale, slices)
    if truth.size != wanted:
        raise UserError(
            f"{truth.source} has {_text(truth.size)} voxels, expected {_text(wanted)}: those of "
            f"{volume.source}, {scale} times as fine in plane: resample it onto that grid first"
        )
    if not (volume.spacing_known and truth.spacing_known):
        return
    apart = shrunk_affine(truth.affine, scale) - volume.affine
    corners = np.array([(x, y, z, 1) for x in (0, columns) for y in (0, rows) for z in (0, slices)])
    distance = float(np.linalg.norm((corners @ apart.T)[:, :3], axis=1).max())
    if distance > REGISTERED * min(volume.spacing[:2]):
        raise UserError(
            f"{truth.source} lies up to {distance:.3g} mm from where {volume.source} is, more than "
            "half a pixel: register it, and write it in the same place"
        )


def _text(size: tuple[int, int, int]) -> str:
    return "x".join(map(str, size))
