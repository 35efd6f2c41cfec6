"""Which clinical scans a model knows after training: what travels with its weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from data.patches import slab_of
from data.phantom.training_set import phantom_version
from data.public_dataset import NOISE_SIGMA
from data.scan_properties import PHANTOM_VERSION, ScanProperties, measure_scan
from data.training_data import TrainingData
from data.volumes.volume import Volume
from options.train_checks import PAIR_LOSSES, has_weight

MEASURED = 8  # clinical volumes at the most, a second each
# Weights of the losses by which G_A learns from clinical patches themselves.
CLINICAL_LOSSES = (
    "lambda_G_A",
    "lambda_A",
    "lambda_downsample_loss",
    "lambda_clinical_ssim",
    "lambda_supervised",
)


def known_scans(options: Namespace, data: TrainingData) -> dict[str, list[float]]:
    """Lowest and highest value of each property (`data.scan_properties`) that training sees, and
    the version of the phantom among its volumes.

    Of pseudo-pairs and of shrunk patches it is the scanner's; of clinical patches that G_A learns
    from it is measured, and their slice spacing always counts. A property that nothing tells is
    left out. So is the pixel size of the public setting, which learns to enlarge pixels that are
    larger than those of any scan it will be given.

    Args:
        options: of the training run.
        data: its volumes.
    """
    scans = [ScanProperties(None, spacing, None, None) for spacing in _slice_spacings(data)]
    public = options.dataset_mode == "public_2D"
    unpaired = options.dataset_mode == "unpaired"
    shrunk = unpaired and options.scanner != "fixed" and options.micro_mix > 0
    if has_weight(options, PAIR_LOSSES) or public or shrunk:
        scans += _of_scanner(options, data)
    if not public and any(getattr(options, name) > 0 for name in CLINICAL_LOSSES):
        step = -(-len(data.clinical) // MEASURED)
        scans += [measure_scan(volume, mask) for volume, mask in data.clinical[::step]]
    known = {}
    for name in ScanProperties._fields:
        values = [value for scan in scans if (value := getattr(scan, name)) is not None]
        if values:
            known[name] = [min(values), max(values)]
    sources = [path for paths in data.sources.values() for path in paths]
    versions = [version for path in sources if (version := phantom_version(Path(path).absolute()))]
    if versions:
        known[PHANTOM_VERSION] = [min(versions), max(versions)]
    return known


def _slice_spacings(data: TrainingData) -> list[float]:
    """Of clinical volumes, whatever looks at them: tissue is as thick in their patches."""
    return [volume.spacing[2] for volume, _ in data.clinical if volume.spacing_known]


def _of_scanner(options: Namespace, data: TrainingData) -> list[ScanProperties]:
    """The two ends of what the scanner makes of each micro volume."""
    public = options.dataset_mode == "public_2D"
    if options.scanner != "fixed":
        blur, noise, pixel = options.scanner_blur, options.scanner_noise, options.scanner_pixel
    else:
        # The public setting gives some of its inputs noise whatever the scanner.
        highest = NOISE_SIGMA if public else options.pair_noise
        lowest = 0.0 if public else options.pair_noise
        blur, noise, pixel = [options.pair_blur] * 2, [lowest, highest], [1.0] * 2
    if options.dataset_mode == "paired":
        pixel = [1.0] * 2  # its truths are read as they are
    # Slices of truths and of the public setting are as thick as they are.
    unpaired = options.dataset_mode == "unpaired" and options.scanner != "fixed"
    share = tuple(options.scanner_thickness) if unpaired else (0.0, 0.0)
    fine: list[Volume] = [volume for volume, _ in data.clinical] if public else data.micro
    windows, scale = data.windows, 2**options.sampling_times
    hu = (windows.clinical.high - windows.clinical.low) / 2
    found = []
    for volume in fine:
        edge = data.clinical_spacing if options.match_spacing else volume.spacing[0] * scale
        slices = slab_of(volume, data.clinical_thickness, share)
        for end in (0, 1):
            found.append(
                ScanProperties(
                    None if public or not volume.spacing_known else edge * pixel[end],
                    volume.spacing[2] * slices[end] if volume.spacing_known else None,
                    blur[end],
                    # With a range of its own for each volume nobody knows the noise in HU.
                    None if windows.normalization == "minmax" else noise[end] * hu,
                )
            )
    return found
