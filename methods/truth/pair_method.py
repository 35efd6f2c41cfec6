"""pairtest: super-resolution against the truth of registered pairs of one's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.formats.discovery import find_volumes
from data.opening import open_volumes, open_with_lung_mask
from data.paired_dataset import refuse_other_grid
from data.truth_case import LABELS, TruthCase
from data.volumes.geometry import enlarged_affine, shrunk_affine
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW
from methods.inputs import check_window, mask_words, say_who_is_named
from methods.truth.benchmark import Benchmark, refuse_outputs
from methods.truth.models import common_scale, load_models, model_rows
from methods.truth.opponents import INTERPOLATIONS, Method
from methods.truth.phantom_method import benchmark_plan, linear_methods
from util.devices import free_memory
from util.errors import UserError
from util.images.metrics import refuse_too_small
from util.progress import format_bytes

REGISTERED = 0.5  # input pixels by which corners may lie apart, where both files say where they are
COPIES = 6  # of the truth, besides one a method: clipped, thin, masks, weights, what is measured
VOXEL_BYTES = 4


class Pair(NamedTuple):
    """A clinical volume with its lung, and its truth."""

    clinical: Volume
    mask: np.ndarray | None  # None for everywhere
    truth: Volume


def pair_benchmark(options: Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    refuse_outputs(options)
    models = load_models(options)
    scale = common_scale(models)
    pairs = open_pairs(options)
    rows = model_rows(models, options)
    # Whatever does not fit is told before any work.
    for pair in pairs:
        refuse_unregistered(pair.clinical, pair.truth, scale)
        refuse_too_small(pair.truth.size[1::-1], pair.truth.source)
        refuse_too_large(pair.truth, len(INTERPOLATIONS) + 2 + len(rows))
    linear = linear_methods(benchmark_plan(scale), known=False)
    methods: Sequence[Method] = [*INTERPOLATIONS, *linear, *rows]
    benchmark = Benchmark(options, models, methods)
    benchmark.add((as_case(pair, scale) for pair in pairs), len(pairs))
    names = []
    for clinical, _, truth in pairs:
        mask = mask_words(clinical, options)
        within = f" within {mask}" if mask else ""
        names.append(f"{clinical.source} against {truth.source}{within}")
    benchmark.write(names, {})
    return 0


def open_pairs(options: Namespace) -> list[Pair]:
    """What --input and --truth name, one for one; voxel sizes of TIFF are those of the truths.

    Raises:
        UserError: not as many of the one as of the other.
    """
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    inputs = find_volumes(options.input, cache_dir)
    truths = open_volumes(options.truth, cache_dir, options.micro_spacing, options.slices)
    if len(inputs) != len(truths):
        raise UserError(
            f"--input names {len(inputs)} volumes and --truth {len(truths)}: give one truth for "
            "each input, in the same order"
        )
    folder = Path(options.maskdatafolder) if options.maskdatafolder else None
    pairs = []
    for path, truth in zip(inputs, truths, strict=True):
        if options.region == "lung":
            opened = open_with_lung_mask(path, cache_dir, folder, None, options.slices)
            pairs.append(Pair(*opened, truth))
            print(f"lung mask of {opened[0].name}: {mask_words(opened[0], options)}")
        else:
            (volume,) = open_volumes([str(path)], cache_dir, None, options.slices)
            pairs.append(Pair(volume, None, truth))
    for pair in pairs:
        say_who_is_named(pair.clinical)
    return pairs


def as_case(pair: Pair, scale: int) -> TruthCase:
    """A pair in memory; everything inside the mask counts as parenchyma.

    Raises:
        UserError: a window that leaves nothing of a volume.
    """
    volume, mask, truth = pair
    check_window(volume, CLINICAL_WINDOW)
    check_window(truth, CLINICAL_WINDOW)
    inside = np.ones(volume.array.shape, bool) if mask is None else np.asarray(mask) != 0
    fine = np.stack([truth.read_slice(index) for index in range(truth.num_slices)])
    labels = np.where(inside, LABELS["parenchyma"], LABELS["outside"]).astype(np.uint8)
    known = truth.spacing_known or not volume.spacing_known
    name = volume.title
    if name != volume.name:  # of several patients without their names each has one of its own
        name += f" {blake2b(volume.name.encode(), digest_size=3).hexdigest()}"
    return TruthCase(
        name,
        "pair",
        np.stack([volume.read_slice(index) for index in range(volume.num_slices)]),
        inside,
        fine,
        fine,
        labels.repeat(scale, axis=1).repeat(scale, axis=2),
        truth.affine if known else enlarged_affine(volume.affine, scale),
        scale,
    )


def refuse_unregistered(volume: Volume, truth: Volume, scale: int) -> None:
    """Refuse a truth that cannot show the same field.

    Raises:
        UserError: says by what.
    """
    refuse_other_grid(volume, truth, scale)
    columns, rows, slices = volume.size
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


def refuse_too_large(truth: Volume, methods: int) -> None:
    """Refuse a truth of which there is no room for what all methods make of it.

    Raises:
        UserError: says how much is needed and what to do.
    """
    needed = int(np.prod(truth.size)) * VOXEL_BYTES * (methods + COPIES)
    free = free_memory(torch.device("cpu"))
    if needed > free:
        raise UserError(
            f"{truth.source} and what {methods} methods make of it take {format_bytes(needed)}, "
            f"{format_bytes(free)} are free: give fewer slices, such as --slices 100:110"
        )
