"""Whether clinical CT and micro-CT have the same network value for the same tissue.

Two peaks of their histograms tell: lung, at the clinical pixel's size, and the tissue of vessels
and walls. Micro-CT has units of its own, and windows by percentiles depend on what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

from data.scanner_estimate import hounsfield_of
from data.training_data import TrainingData
from data.windows import IntensityWindow, sampled_voxels

BINS = 200  # over a window and half of it on either side
SMOOTHING = 2.0  # bins
SMALLEST = 0.004  # of the highest peak, that another one rises above the valley
SOFT = (-150.0, 150.0)  # HU between which soft tissue of clinical CT has its peak
TISSUE = 40.0  # HU of blood and muscle, for a CT that shows nothing but lung
TOLERANCE = 150.0  # HU: lungs are inflated by so much more or less


def peaks_of(values: np.ndarray, window: IntensityWindow) -> list[float]:
    """Peaks of the histogram of HU (any shape) in a window and half its width beyond either end;
    the lowest comes first."""
    counts, middles = _histogram(values, window)
    places, _ = signal.find_peaks(np.pad(counts, 1), prominence=SMALLEST * counts.max())
    return [float(middles[place - 1]) for place in places]


def disagreement(data: TrainingData, lung: Sequence[np.ndarray], shrunk: np.ndarray) -> str | None:
    """A line where lung or tissue have other values in micro-CT than in clinical CT, else None.

    None, too, where a volume shows no such peak, or each has a window of its own.

    Args:
        data: volumes and windows.
        lung: patches of clinical lung, HU.
        shrunk: patches of micro-CT at the clinical pixel's size, in the HU of its window.
    """
    clinical, micro = data.windows.clinical, data.windows.micro
    if data.windows.normalization == "minmax" or not len(shrunk) or not any(map(len, lung)):
        return None
    of_lung = _highest(np.concatenate([patches.ravel() for patches in lung]), clinical)
    of_shrunk = _highest(shrunk, clinical)
    volumes = [volume for volume, _ in data.clinical]
    tissue = [
        peak for peak in peaks_of(sampled_voxels(volumes), clinical) if SOFT[0] < peak < SOFT[1]
    ]
    of_tissue = tissue[-1] if tissue else TISSUE
    fine = peaks_of(hounsfield_of(sampled_voxels(data.micro), data.windows), clinical)
    # Lung that is as dense as tissue, and tissue that is no denser than lung, tell nothing.
    if len(fine) < 2 or of_lung >= of_tissue - TOLERANCE or of_shrunk >= fine[-1]:
        return None
    differences = of_shrunk - of_lung, fine[-1] - of_tissue
    if max(map(abs, differences)) <= TOLERANCE:
        return None
    # The line that takes both peaks to those of clinical CT, back to the micro-CT's own values.
    slope = (fine[-1] - of_shrunk) / (of_tissue - of_lung)
    ends = [fine[-1] + (end - of_tissue) * slope for end in (clinical.low, clinical.high)]
    factor = (micro.high - micro.low) / (clinical.high - clinical.low)
    low, high = (micro.low + (end - clinical.low) * factor for end in ends)
    return (
        f"grey values: lung is at {of_lung:.0f} HU in clinical CT and at {of_shrunk:.0f} in "
        f"micro-CT as its window has it, tissue at {of_tissue:.0f} and {fine[-1]:.0f}: --windows "
        f"micro={low:.5g}:{high:.5g} would make them agree (docs/data.md)"
    )


def _highest(values: np.ndarray, window: IntensityWindow) -> float:
    """The HU that occur most often."""
    counts, middles = _histogram(values, window)
    return float(middles[counts.argmax()])


def _histogram(values: np.ndarray, window: IntensityWindow) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed counts, and the middles of their bins."""
    reach = (window.high - window.low) / 2
    counts, borders = np.histogram(values, BINS, (window.low - reach, window.high + reach))
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), SMOOTHING)
    return smooth, (borders[1:] + borders[:-1]) / 2
