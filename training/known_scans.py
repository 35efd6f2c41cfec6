"""Which clinical scans a model knows after training: what travels with its weights."""

from __future__ import annotations

from argparse import Namespace

from data.scan_properties import ScanProperties, measure_scan
from data.training_data import TrainingData
from data.volumes.volume import Volume

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
    """Lowest and highest value of each property (`data.scan_properties`) that training sees.

    Of pseudo-pairs and of shrunk patches it is the scanner's; of clinical patches it is measured.
    A property that nothing tells is left out. So is the pixel size of the public setting, which
    learns to enlarge pixels that are larger than those of any scan it will be given.

    Args:
        options: of the training run.
        data: its volumes.
    """
    scans: list[ScanProperties] = []
    public = options.dataset_mode == "public_2D"
    if options.lambda_pair > 0 or public:
        scans += _of_scanner(options, data)
    if not public and any(getattr(options, name) > 0 for name in CLINICAL_LOSSES):
        step = -(-len(data.clinical) // MEASURED)
        scans += [measure_scan(volume, mask) for volume, mask in data.clinical[::step]]
    known = {}
    for name in ScanProperties._fields:
        values = [value for scan in scans if (value := getattr(scan, name)) is not None]
        if values:
            known[name] = [min(values), max(values)]
    return known


def _of_scanner(options: Namespace, data: TrainingData) -> list[ScanProperties]:
    """The two ends of what the scanner makes of each micro volume."""
    if options.scanner == "random":
        blur, noise, pixel = options.scanner_blur, options.scanner_noise, options.scanner_pixel
    else:
        blur, noise, pixel = [options.pair_blur] * 2, [options.pair_noise] * 2, [1.0] * 2
    hu = (data.windows.clinical.high - data.windows.clinical.low) / 2
    public = options.dataset_mode == "public_2D"
    fine: list[Volume] = [volume for volume, _ in data.clinical] if public else data.micro
    return [
        ScanProperties(
            None if public else volume.spacing[0] * 2**options.sampling_times * pixel[end],
            volume.spacing[2],
            blur[end],
            noise[end] * hu,
        )
        for volume in fine
        if volume.spacing_known
        for end in (0, 1)
    ]
