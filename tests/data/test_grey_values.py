"""Grey values of both domains: said where they disagree, with the window that mends it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from data.grey_values import disagreement, peaks_of
from data.scanner_estimate import hounsfield_of
from data.training_data import TrainingData
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy

RIGHT = IntensityWindow(2500.0, 12250.0)


def tissue(air: float, share: float, seed: int) -> np.ndarray:
    """Voxels of air and a share of tissue of 50 HU, with noise, in HU."""
    generator = np.random.default_rng(seed)
    voxels = np.where(generator.random((4, 80, 80)) < share, 50.0, air)
    return voxels + generator.normal(0, 60, voxels.shape)


def data_of(window: IntensityWindow) -> TrainingData:
    ct = Volume(tissue(-860, 0.3, 1).astype(np.int16), np.eye(4), "ct.nii")
    micro = Volume((2500 + (tissue(-960, 0.1, 2) + 1000) * 6.5), np.eye(4), "micro.nii")
    return TrainingData([(ct, None)], [micro], WindowPolicy("window", CLINICAL_WINDOW, window), [])


def said_of(data: TrainingData, shift: float = 0.0) -> str | None:
    """What is said where shrunk micro-CT has lung of -860 HU and `shift` in the right window."""
    raw = 2500 + (np.random.default_rng(3).normal(-860 + shift, 30, 9000) + 1000) * 6.5
    lung = [np.random.default_rng(4).normal(-860, 30, 9000)]
    return disagreement(data, lung, hounsfield_of(raw, data.windows))


def test_the_right_window_is_not_spoken_of() -> None:
    assert said_of(data_of(RIGHT)) is None
    assert said_of(data_of(RIGHT), shift=60) is None  # lungs are inflated more or less


@pytest.mark.parametrize("window", [(2500.0, 9500.0), (0.0, 65535.0), (-4000.0, 9000.0)])
def test_another_window_is_named_with_one_that_agrees(window: tuple[float, float]) -> None:
    said = said_of(data_of(IntensityWindow(*window)))
    assert said is not None
    assert "lung is at -858 HU in clinical CT" in said
    named = re.search(r"--windows micro=(-?[\d.]+):([\d.]+) ", said)
    assert named is not None
    low, high = (float(end) for end in named.groups())
    assert (low, high) == pytest.approx((RIGHT.low, RIGHT.high), abs=300)
    assert said_of(data_of(IntensityWindow(low, high))) is None


def test_nothing_is_said_where_nothing_can_be_told() -> None:
    data = data_of(IntensityWindow(0.0, 65535.0))
    assert disagreement(data, [np.empty(0)], np.zeros(5)) is None
    own_ranges = replace(data, windows=replace(data.windows, normalization="minmax"))
    assert said_of(own_ranges) is None
    flat = Volume(np.full((2, 9, 9), 3000.0), np.eye(4), "flat.nii")
    assert said_of(replace(data, micro=[flat])) is None


def test_peaks_are_found_from_low_to_high() -> None:
    found = peaks_of(tissue(-860, 0.3, 1), CLINICAL_WINDOW)
    assert found == pytest.approx([-860, 50], abs=15)


def test_lung_as_dense_as_tissue_tells_nothing() -> None:
    data = data_of(IntensityWindow(0.0, 65535.0))
    dense = [np.random.default_rng(4).normal(50, 30, 9000)]
    assert disagreement(data, dense, np.full(9000, -600.0)) is None
    lung = [np.random.default_rng(4).normal(-860, 30, 9000)]
    assert disagreement(data, lung, np.full(9000, 900.0)) is None


def test_windows_of_small_numbers_are_named_with_their_digits() -> None:
    data = data_of(RIGHT)
    micro = [replace(volume, array=volume.array / 65535) for volume in data.micro]
    wrong = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(0.0, 1.0))
    raw = (2500 + (np.random.default_rng(3).normal(-860, 30, 9000) + 1000) * 6.5) / 65535
    lung = [np.random.default_rng(4).normal(-860, 30, 9000)]
    said = disagreement(replace(data, micro=micro, windows=wrong), lung, hounsfield_of(raw, wrong))
    named = re.search(r"--windows micro=([\d.]+):([\d.]+) ", said or "")
    assert named is not None
    ends = [65535 * float(end) for end in named.groups()]
    assert ends == pytest.approx([RIGHT.low, RIGHT.high], abs=300)
