"""--dry_run of medicaltest.py: what would be done, how large it gets, how long it takes."""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.formats.nifti import read_layout
from data.formats.readers import read_volume
from data.lung_mask import read_mask
from data.volumes.mask_files import find_mask
from data.volumes.names import NIFTI_ENDINGS, ending_of
from data.volumes.volume import Volume, parse_slices
from data.windows import Domain
from methods.cohort import own_share
from methods.inputs import input_paths, input_spacing, result_folders
from methods.loading import LoadedModel, load_model
from methods.pages.result_page import PAGE
from methods.restoration.method import output_names as restored_names
from methods.restoration.method import stored_type
from methods.stability.method import LOOKS
from methods.stability.method import OUTPUTS as STABILITY_OUTPUTS
from methods.stability.method import RECORD as STABILITY_RECORD
from methods.super_resolution.companions import export_names
from methods.super_resolution.method import output_names
from methods.truth.benchmark import prefix_of
from methods.truth.models import load_models
from methods.truth.report import output_names as report_names
from models.inference.case_enlarger import CaseEnlarger
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from options.base_options import PHANTOM_FOLDER
from util.disk.disk_space import free_space
from util.progress import format_bytes, format_seconds

TIMED_SIDE = 64  # pixels of the square whose time is measured: enough to keep the device busy
INT16_BYTES = 2
PHANTOM_IS_MISSING = "the phantom, which would be made first (about a minute on two cores)"


def dry_run(options: Namespace) -> int:
    """Tell what the run would do; writes nothing but the cache of unpacked volumes.

    Returns:
        Exit code 0.
    """
    print("dry run: nothing is written but the cache of unpacked volumes")
    if options.method in ("phantomtest", "pairtest"):
        models = load_models(options)
        cases = options.input or [f"{options.patients} phantom patients (made where missing)"]
        print(f"{len(models)} models on {', '.join(map(str, cases))}")
        prefix = prefix_of(options)
        names = report_names(prefix, options.scanners)
        print(f"{options.results_dir}: {', '.join([*names, f'{prefix}_run.json'])}")
        return 0
    model = load_model(options)
    if not options.input and not (Path(PHANTOM_FOLDER) / f"x{model.scale}").is_dir():
        print(f"on {PHANTOM_IS_MISSING}")
        return 0
    paths = input_paths(options, model.scale, domain_of(options))
    folders = result_folders(paths, options.results_dir)
    cases = own_share(list(zip(paths, folders, strict=True)), options.num_parts, options.part_id)
    seconds_per_pixel = time_per_pixel(model.resolver, options)
    total_bytes, total_seconds = 0.0, 0.0
    for path, folder in cases:
        size, voxel_bytes = volume_size(path, options)
        voxels, seconds = case_cost(size, model, options)
        seconds *= seconds_per_pixel
        case_bytes = voxels * voxel_bytes
        total_bytes += case_bytes
        total_seconds += seconds
        written = ", ".join(planned_files(options))
        print(
            f"{path}: {' x '.join(map(str, size))} voxels -> {folder}: {written}; at most "
            f"{format_bytes(case_bytes)}, about {format_seconds(seconds)}"
        )
        for name in planned_files(options):
            if (folder / name).exists() and not (options.overwrite or options.resume):
                print(f"  {folder / name} exists already: --overwrite would replace it")
                break
    print(
        f"{len(cases)} cases: at most {format_bytes(total_bytes)} before packing, "
        f"{format_bytes(free_space(Path(options.results_dir)))} are free; about "
        f"{format_seconds(total_seconds)}, less where a slice shows little lung"
    )
    return 0


def planned_files(options: Namespace) -> list[str]:
    """Names of what a case would leave."""
    page = [PAGE] if options.page_mb > 0 else []
    if options.method == "smallpatchtest":
        return [*output_names(options), *export_names(options), "run.json", *page]
    if options.method == "stabilitytest":
        return [*STABILITY_OUTPUTS, STABILITY_RECORD, *page]
    domain = domain_of(options)
    return [*restored_names(domain), f"{domain}_run.json", *page]


def domain_of(options: Namespace) -> Domain:
    """What the method's inputs are."""
    return "micro" if options.method == "microCTsmallpatchtest" else "clinical"


def volume_size(path: Path, options: Namespace) -> tuple[tuple[int, int, int], int]:
    """Voxels (x, y, z) that would be worked on, and bytes of a written one.

    Of NIfTI files the header alone is read. Of the lung mask, where there is one, the place.

    Raises:
        UserError: what the work itself would refuse of them.
    """
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    if ending_of(path) in NIFTI_ENDINGS:
        layout = read_layout(path)
        voxels = np.broadcast_to(np.zeros((), layout.dtype), layout.shape)  # of no memory
        volume = Volume(voxels, layout.affine, str(path), layout.slope, layout.intercept)
        volume = replace(volume, spacing_known=layout.spacing_known)
    else:
        volume = read_volume(path, cache_dir, input_spacing(path, domain_of(options), options))
    if options.region == "lung":
        folder = Path(options.maskdatafolder) if options.maskdatafolder else None
        if (mask := find_mask(volume, folder)) is not None:
            read_mask(mask, volume, cache_dir)
    columns, rows, slices = volume.size
    stored = stored_type(volume.array.dtype, volume.slope, volume.intercept)
    if options.slices is not None:
        start, stop = parse_slices(options.slices, slices)
        slices = stop - start
    in_hu = options.method == "smallpatchtest"
    return (columns, rows, slices), INT16_BYTES if in_hu else np.dtype(stored).itemsize


def case_cost(
    size: tuple[int, int, int], model: LoadedModel, options: Namespace
) -> tuple[int, float]:
    """Voxels of all volumes of a case, and input pixels that are enlarged."""
    columns, rows, slices = size
    pixels = columns * rows * slices
    passes = 2 if model.norm_scope == "volume" else 1
    if options.method == "smallpatchtest":
        fine = pixels * model.scale**2
        formats = 1 if options.output_format == "nifti" else 2
        return pixels + fine * (formats + int(options.uncertainty)), float(pixels * passes)
    if options.method == "stabilitytest":
        return 0, float(pixels * passes * LOOKS)  # tables and pictures only
    low = math.ceil(columns / model.scale) * math.ceil(rows / model.scale) * slices
    return 2 * pixels + low, float(low * passes)


def time_per_pixel(resolver: SuperResolver, options: Namespace) -> float:
    """Seconds that the network takes for an input pixel with all its orientations and draws,
    measured on a square of noise."""
    image = np.random.default_rng(0).uniform(-1, 1, (TIMED_SIDE, TIMED_SIDE)).astype(np.float32)
    enlarger = CaseEnlarger(resolver, options.self_ensemble, options.uncertainty, options.samples)

    def seconds() -> Iterator[float]:
        for _ in range(2):  # the first builds what the others use
            start = time.perf_counter()
            deque(enlarger.enlarge([SliceJob(image)]), maxlen=0)
            yield time.perf_counter() - start

    return min(seconds()) / TIMED_SIDE**2
