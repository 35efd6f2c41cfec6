"""What a scan is like, measured in a second: pixel size, slice spacing, noise and sharpness.

Weights know the scans that they were trained for (`training/known_scans.py`); what lies outside is
named before the work. Noise and point spread are estimates: their constants are fitted to the
phantom's validation patients, seen by scanners of known noise and blur (docs/benchmark.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from data.volumes.volume import Volume

SAMPLED_SLICES = 5
# Noise: the quietest twentieth of small squares shows it, and less than the whole of it.
SQUARE, QUIETEST, NOISE_SHARE = 5, 0.05, 0.75
AIR = -1000.0  # HU; scanners and converters clip there, and what is clipped has no noise
# Sharpness: the steepest edges between air and tissue, of so many HU within an edge's reach. Bone
# and metal are steeper than their pixels show.
EDGE_HEIGHT, EDGE_REACH, BONE = 500.0, 7, 500.0
FEWEST_EDGES, STEEPEST = 20, 0.05
# Squared full width of the point spread by the squared ratio of an edge's height to its slope.
WIDTH_SLOPE, WIDTH_OFFSET = 1.81, 7.7
# Which properties there are: name in records -> what to call it, unit, and by what share a value
# may pass a range and still be within it: the last two are estimates, and slices half or twice as
# far apart look much alike.
TEXTS = {
    "pixel_size": ("pixels of", "mm", 0.05),
    "slice_spacing": ("slices every", "mm", 1.0),
    "point_spread": ("a point spread of", "pixels", 0.15),
    "noise": ("noise of", "HU", 0.2),
}


# Beside the properties, what weights know of the phantom: versions of what they were trained on.
PHANTOM_VERSION = "phantom_version"


class ScanProperties(NamedTuple):
    """Of one scan; None where nothing shows it."""

    pixel_size: float | None  # mm, in plane
    slice_spacing: float | None  # mm
    point_spread: float | None  # full width at half maximum, pixels, beyond the pixel itself
    noise: float | None  # standard deviation, HU


def measure_scan(volume: Volume, mask: np.ndarray | None) -> ScanProperties:
    """Look at a few slices in the middle half of a clinical CT.

    Args:
        volume: in HU.
        mask: lung mask (z, y, x), where noise is looked for; None for everywhere.
    """
    noises, spreads = [], []
    places = np.linspace(0.25, 0.75, SAMPLED_SLICES) * (volume.num_slices - 1)
    for index in sorted({int(place) for place in places}):
        image = volume.read_slice(index).astype(np.float32)
        inside = np.ones(image.shape, bool) if mask is None else mask[index] != 0
        noises.append(noise_of(image, inside))
        spreads.append(point_spread_of(image))
    known = volume.spacing_known
    return ScanProperties(
        float(np.mean(volume.spacing[:2])) if known else None,
        volume.spacing[2] if known else None,
        _median(spreads),
        _median(noises),
    )


def noise_of(image: np.ndarray, inside: np.ndarray) -> float | None:
    """Standard deviation of the noise of a slice, HU; fine texture counts as noise."""
    mean = ndimage.uniform_filter(image, SQUARE)
    variance = ndimage.uniform_filter((image - image.mean()) ** 2, SQUARE)
    variance -= (mean - image.mean()) ** 2
    chosen = inside & (ndimage.minimum_filter(image, SQUARE) > AIR)
    if not chosen.any():
        return None
    deviation = np.sqrt(variance[chosen].clip(0) * SQUARE**2 / (SQUARE**2 - 1))
    return float(np.quantile(deviation, QUIETEST)) / NOISE_SHARE


def point_spread_of(image: np.ndarray) -> float | None:
    """Full width at half maximum of the point spread of a slice, in pixels."""
    slope = np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1)) / 8
    highest = ndimage.maximum_filter(image, EDGE_REACH)
    height = highest - ndimage.minimum_filter(image, EDGE_REACH)
    edges = (height > EDGE_HEIGHT) & (highest < BONE) & (slope > 0)
    edges &= slope == ndimage.maximum_filter(slope, 3)
    if np.count_nonzero(edges) < FEWEST_EDGES:
        return None
    ratio = float(np.quantile(height[edges] / slope[edges], STEEPEST))
    return float(np.sqrt(max(WIDTH_SLOPE * ratio**2 - WIDTH_OFFSET, 0.0)))


def beyond(scan: ScanProperties, known: Mapping[str, Sequence[float]]) -> list[str]:
    """In words, each property of a scan that lies outside what weights know.

    Args:
        scan: measured.
        known: name of a property -> lowest and highest value; a property that is not among them is
            not compared.
    """
    found = []
    for name, value in scan._asdict().items():
        if value is None or name not in known:
            continue
        words, unit, tolerance = TEXTS[name]
        low, high = known[name]
        if not low / (1 + tolerance) <= value <= high * (1 + tolerance):
            span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            found.append(f"{words} {value:.3g} {unit} ({span})")
    return found


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None
