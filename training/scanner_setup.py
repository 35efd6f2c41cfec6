"""What is learned of the scans before training: `--scanner auto`, and a word on grey values."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np

from data.grey_values import disagreement
from data.scanner_estimate import (
    MOST_RUNS,
    ScannerEstimate,
    clinical_patches,
    estimate_scanner,
    micro_patches,
)
from data.training_data import TrainingData

# Training draws so much around what was found (docs/benchmark.md has how well it is found): shares
# of point spread, noise and steepness.
AROUND = ScannerEstimate(point_spread=0.15, noise=0.3, steepness=0.15)
PIXEL = 0.1  # and of the pixel size, which is known
FEW_RUNS = 12  # of slices, for the grey values alone
ENOUGH = 60  # patches of a volume for an estimate of its own


def look_at_scans(
    options: Namespace, data: TrainingData, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Say where grey values disagree; for `--scanner auto`, find the scanner.

    Args:
        options: of the training run.
        data: its volumes.
        say: takes lines for the user.

    Returns:
        Options of the scanner that were found, by name; none but for `--scanner auto`.

    Raises:
        UserError: `--scanner auto` finds nothing to compare.
    """
    if options.dataset_mode != "unpaired" or data.windows.normalization == "minmax":
        return {}
    scale = 2**options.sampling_times
    runs = MOST_RUNS if options.scanner == "auto" else FEW_RUNS
    clinical, fine = clinical_patches(data.clinical, runs), micro_patches(data, scale, runs)
    if line := disagreement(data, clinical, fine):
        say(line)
    if options.scanner != "auto":
        return {}
    together = estimate_scanner(np.concatenate(clinical), fine)
    each = [estimate_scanner(patches, fine) for patches in clinical if len(patches) >= ENOUGH]
    found = np.array([together, *each])
    share = np.array(AROUND)
    ends = np.stack([found.min(axis=0) * (1 - share), found.max(axis=0) * (1 + share)])
    spread, noise, steepness = ([float(f"{end:.3g}") for end in column] for column in ends.T)
    say(
        f"scanner of the clinical CT: a point spread of {together.point_spread:.2g} pixels beyond "
        f"the pixel itself, noise of {together.noise:.2g} HU; trained on scanners of "
        f"{spread[0]:.2g} to {spread[1]:.2g} pixels and {noise[0]:.2g} to {noise[1]:.2g} HU"
    )
    window = data.windows.clinical
    scanner = {
        "scanner_blur": spread,
        "scanner_steepness": steepness,
        "scanner_noise": [2 * end / (window.high - window.low) for end in noise],
    }
    pixels = [
        volume.spacing[0] / (micro.spacing[0] * scale)
        for volume, _ in data.clinical
        for micro in data.micro
        if volume.spacing_known and micro.spacing_known
    ]
    if pixels and not options.match_spacing:  # which makes them alike
        scanner["scanner_pixel"] = [min(pixels) * (1 - PIXEL), max(pixels) * (1 + PIXEL)]
    return scanner
