"""Which scans a model knows: what the scanner draws, and what clinical volumes are."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from data.training_data import TrainingData
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from options import TrainOptions
from training.known_scans import known_scans

PAIRS_ALONE = ("--preset", "best")


def options_of(*words: str) -> Namespace:
    return TrainOptions().parse(list(words), lambda: 0)[0]


def data_of(clinical: tuple[float, ...], micro: tuple[float, ...] = ()) -> TrainingData:
    voxels = np.random.default_rng(0).normal(-850, 20, (4, 24, 24)).astype(np.float32)
    volumes = [
        Volume(voxels, np.diag([spacing, spacing, 4 * spacing, 1.0]), "a.nii")
        for spacing in (*clinical, *micro)
    ]
    policy = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(0, 1))
    count = len(clinical)
    return TrainingData([(one, None) for one in volumes[:count]], volumes[count:], policy, [])


def test_a_random_scanner_is_known_in_its_ranges() -> None:
    known = known_scans(options_of(*PAIRS_ALONE), data_of((0.7,), (0.0625, 0.05)))
    assert known["pixel_size"] == pytest.approx([0.8 * 0.4, 1.8 * 0.5])
    # From one slice to 1.25 clinical ones (of 2.8 mm), but the volumes have four slices only.
    assert known["slice_spacing"] == pytest.approx([0.2, 2.8])
    thin = known_scans(
        options_of(*PAIRS_ALONE, "--scanner_thickness", "0", "0.3"), data_of((0.7,), (0.0625,))
    )
    assert thin["slice_spacing"] == pytest.approx([0.25, 2.8])
    thick = known_scans(options_of(*PAIRS_ALONE), data_of((0.2,), (0.0625,)))
    assert thick["slice_spacing"] == pytest.approx([0.25, 1.0])
    assert known["point_spread"] == [0.0, 3.2]
    assert known["noise"] == pytest.approx([0.0, 75.0])


def test_a_fixed_scanner_is_known_alone() -> None:
    words = ("--scanner", "fixed", "--pair_blur", "1.5", "--pair_noise", "0.04")
    known = known_scans(options_of(*PAIRS_ALONE, *words), data_of((0.7,), (0.0625,)))
    assert known["pixel_size"] == pytest.approx([0.5, 0.5])
    assert known["point_spread"] == [1.5, 1.5]
    assert known["noise"] == pytest.approx([30.0, 30.0])


def test_clinical_patches_are_measured_where_a_loss_looks_at_them() -> None:
    known = known_scans(options_of("--preset", "paper"), data_of((0.7, 0.9), (0.0625,)))
    assert known["pixel_size"] == pytest.approx([0.7, 0.9])
    assert known["noise"][1] == pytest.approx(20, rel=0.3)
    assert "point_spread" not in known  # noise has no edges


def test_the_public_setting_does_not_know_the_pixels_that_it_will_be_given() -> None:
    words = ("--dataset_mode", "public_2D", "--sampling_times", "2")
    known = known_scans(options_of(*PAIRS_ALONE, *words), data_of((0.7,)))
    assert "pixel_size" not in known
    assert known["slice_spacing"] == pytest.approx([2.8, 2.8])
    assert known["point_spread"] == [0.0, 3.2]


def test_resampled_micro_ct_has_the_clinical_pixels() -> None:
    known = known_scans(options_of(*PAIRS_ALONE, "--match_spacing"), data_of((0.7,), (0.02,)))
    assert known["pixel_size"] == pytest.approx([0.8 * 0.7, 1.8 * 0.7])


def test_the_public_setting_gives_noise_whatever_the_scanner() -> None:
    words = ("--preset", "paper", "--dataset_mode", "public_2D")
    assert known_scans(options_of(*words), data_of((0.7,)))["noise"] == pytest.approx([0, 37.5])


def test_shrunk_patches_are_seen_by_the_random_scanner() -> None:
    words = ("--preset", "paper", "--scanner", "random")
    options = options_of(*words)
    known = known_scans(options, data_of((0.7,), (0.0625,)))
    assert known["pixel_size"] == pytest.approx([0.4, 0.9])
    options.micro_mix = 0.0
    known = known_scans(options, data_of((0.7,), (0.0625,)))
    assert known["pixel_size"] == pytest.approx([0.7, 0.7])


def test_truths_are_read_as_they_are() -> None:
    words = (*PAIRS_ALONE, "--dataset_mode", "paired")
    assert known_scans(options_of(*words), data_of((0.5,), (0.0625,)))["pixel_size"] == [0.5, 0.5]


def test_a_range_for_each_volume_leaves_no_noise_in_hu() -> None:
    words = (*PAIRS_ALONE, "--normalization", "minmax")
    data = data_of((0.7,), (0.0625,))
    minmax = replace(data, windows=replace(data.windows, normalization="minmax"))
    assert "noise" not in known_scans(options_of(*words), minmax)
