"""What is learned of the scans before training: `--scanner auto`, and a word on grey values."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence

import numpy as np

from data.grey_values import disagreement
from data.scanner_estimate import (
    MOST_RUNS,
    ScannerEstimate,
    clinical_patches,
    estimate_scanner,
    micro_patches,
    thinned,
)
from data.training_data import TrainingData
from data.volumes.volume import LARGE_BYTES
from util.errors import UserError

# Training draws so much around what was found (docs/benchmark.md has how well it is found): shares
# of point spread, noise and steepness, in the order of `ScannerEstimate`.
AROUND = (0.15, 0.3, 0.15)
PIXEL = 0.1  # and of the pixel size, which is known
FEW_RUNS = 12  # of slices, for the grey values alone
MOST_SCANS = 8  # that get an estimate of their own
ENOUGH = 60  # patches of one for that
MIDDLE = (0.1, 0.9)  # quantiles of them that are trained between


def look_at_scans(
    options: Namespace, data: TrainingData, is_new: bool, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Say where grey values disagree; for `--scanner auto`, find the scanner.

    Args:
        options: of the training run.
        data: its volumes.
        is_new: whether a window could still be chosen; else nothing is said of grey values.
        say: takes lines for the user.

    Returns:
        Options of the scanner that were found, by name; none but for `--scanner auto`.

    Raises:
        UserError: `--scanner auto` finds nothing to compare, or micro-CT of several sizes.
    """
    if options.dataset_mode != "unpaired" or data.windows.normalization == "minmax":
        return {}
    scale, is_auto = 2**options.sampling_times, options.scanner == "auto"
    # A line that is a help only must not read gigabytes.
    is_large = any(volume.array.nbytes > LARGE_BYTES for volume in data.micro)
    if not is_auto and (is_large or not is_new):
        return {}
    runs = MOST_RUNS if is_auto else FEW_RUNS
    clinical, fine = clinical_patches(data.clinical, runs), micro_patches(data, scale, runs)
    if is_new and (line := disagreement(data, clinical, fine)):
        say(line)
    if not is_auto:
        return {}
    together = estimate_scanner(thinned(np.concatenate(clinical)), fine)
    found = np.array([together, *_each(clinical, fine)])
    lowest, highest = np.quantile(found, MIDDLE, axis=0)
    share = np.array(AROUND)
    ends = np.stack([lowest * (1 - share), highest * (1 + share)])
    spread, noise, steepness = ([float(f"{end:.3g}") for end in column] for column in ends.T)
    say(
        f"scanner of the clinical CT: a point spread of {together.point_spread:.2g} pixels beyond "
        f"the pixel itself, noise of {together.noise:.2g} HU; trained on scanners of "
        f"{spread[0]:.2g} to {spread[1]:.2g} pixels and {noise[0]:.2g} to {noise[1]:.2g} HU"
    )
    sizes = [micro.spacing[0] for micro in data.micro if micro.spacing_known] or [1.0]
    if not options.match_spacing and max(sizes) > (1 + PIXEL) * min(sizes):
        raise UserError(
            f"micro-CT has pixels of {min(sizes):.3g} to {max(sizes):.3g} mm, expected one size "
            "for --scanner auto: add --match_spacing, or train on specimens of one size"
        )
    window = data.windows.clinical
    pixels = [1.0]  # where a size is not known, and where --match_spacing makes both alike
    if not options.match_spacing:
        pixels = [
            volume.spacing[0] / (micro.spacing[0] * scale)
            for volume, _ in data.clinical
            for micro in data.micro
            if volume.spacing_known and micro.spacing_known
        ] or pixels
    return {
        "scanner_blur": spread,
        "scanner_steepness": steepness,
        "scanner_noise": [2 * end / (window.high - window.low) for end in noise],
        "scanner_pixel": [min(pixels) * (1 - PIXEL), max(pixels) * (1 + PIXEL)],
    }


def _each(clinical: Sequence[np.ndarray], fine: np.ndarray) -> list[ScannerEstimate]:
    """Estimates of single scans, of several and where there is enough of them."""
    if len(clinical) == 1:
        return []
    found = []
    for patches in clinical[:: -(-len(clinical) // MOST_SCANS)]:
        if len(patches) < ENOUGH:
            continue
        try:
            found.append(estimate_scanner(patches, fine))
        except UserError:
            continue  # lung like none of the micro-CT's: all scans together have what it is told by
    return found
