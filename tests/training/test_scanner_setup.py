"""What is said and found of the scans before training."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from data.scanner_estimate import EDGE
from data.training_data import TrainingData
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from training.known_scans import known_scans
from training.scanner_setup import look_at_scans
from util.errors import UserError

SIDE = 4 * EDGE
POLICY = WindowPolicy("window", CLINICAL_WINDOW, CLINICAL_WINDOW)


def lung(seed: int, blur: float = 0.0) -> np.ndarray:
    """Vessels in lung, (24, SIDE, SIDE) in HU."""
    generator = np.random.default_rng(seed)
    spikes = (generator.random((24, SIDE, SIDE)) < 0.005) * 40_000.0
    image = np.minimum(-870 + ndimage.gaussian_filter(spikes, (0.8, 1.2, 1.2)), 40)
    image += 40 * ndimage.gaussian_filter(generator.standard_normal(image.shape), 0.6)
    return ndimage.gaussian_filter(image, (0, blur / 2.3548, blur / 2.3548))


def options_of(scanner: str) -> Namespace:
    return Namespace(
        dataset_mode="unpaired",
        sampling_times=1,
        scanner=scanner,
        match_spacing=False,
        scanner_thickness=[0.0, 0.0],
        lambda_pair=1.0,
        micro_mix=0.0,
        lambda_G_A=0.0,
        lambda_A=0.0,
        lambda_downsample_loss=0.0,
        lambda_clinical_ssim=0.0,
        lambda_supervised=0.0,
    )


@pytest.fixture(scope="module")
def data() -> TrainingData:
    # The specimens have voxels of half the size, the scan pixels of 0.6 mm.
    fine = [lung(seed).repeat(2, axis=1).repeat(2, axis=2) for seed in (1, 2)]
    micro = [Volume(voxels, np.diag([0.3, 0.3, 0.6, 1.0]), "micro.nii") for voxels in fine]
    ct = Volume(lung(3, blur=2.0), np.diag([0.6, 0.6, 0.6, 1.0]), "ct.nii")
    return TrainingData([(ct, None)], micro, POLICY, [])


def test_auto_finds_the_scanner_says_so_and_the_weights_know_it(data: TrainingData) -> None:
    said: list[str] = []
    options = options_of("auto")
    found = look_at_scans(options, data, True, said.append)
    low, high = found["scanner_blur"]
    assert low < 2 < high < 1.5 * low
    assert found["scanner_pixel"] == pytest.approx([0.9, 1.1])
    (line,) = said
    assert line.startswith("scanner of the clinical CT: a point spread of ")
    assert f"trained on scanners of {low:.2g} to {high:.2g} pixels" in line
    vars(options).update(found)
    known = known_scans(options, data)
    assert known["point_spread"] == found["scanner_blur"]
    assert known["noise"] == pytest.approx([750 * end for end in found["scanner_noise"]])


def test_random_scanners_stay_as_they_are(data: TrainingData) -> None:
    said: list[str] = []
    assert look_at_scans(options_of("random"), data, True, said.append) == {}
    assert said == []


def test_a_window_that_disagrees_is_said_whatever_the_scanner(data: TrainingData) -> None:
    wrong = replace(POLICY, micro=IntensityWindow(-1000, 3000))
    said: list[str] = []
    look_at_scans(options_of("fixed"), replace(data, windows=wrong), True, said.append)
    assert [line[:12] for line in said] == ["grey values:"]


def test_paired_data_and_ranges_of_their_own_are_not_looked_at(data: TrainingData) -> None:
    paired = Namespace(**{**vars(options_of("random")), "dataset_mode": "paired"})
    assert look_at_scans(paired, data, True, print) == {}
    own = replace(data, windows=replace(POLICY, normalization="minmax"))
    assert look_at_scans(options_of("random"), own, True, print) == {}


def test_matched_or_unknown_sizes_are_drawn_around_the_clinical_pixel(data: TrainingData) -> None:
    matched = Namespace(**{**vars(options_of("auto")), "match_spacing": True})
    assert look_at_scans(matched, data, True, print)["scanner_pixel"] == [0.9, 1.1]
    unknown = replace(data, micro=[replace(volume, spacing_known=False) for volume in data.micro])
    assert look_at_scans(options_of("auto"), unknown, True, print)["scanner_pixel"] == [0.9, 1.1]


def test_pixels_are_drawn_around_the_clinical_ones_of_the_specimens(data: TrainingData) -> None:
    finer = np.diag([5 / 6, 5 / 6, 1.0, 1.0])
    micro = [replace(volume, affine=volume.affine @ finer) for volume in data.micro]
    found = look_at_scans(options_of("auto"), replace(data, micro=micro), True, print)
    assert found["scanner_pixel"] == pytest.approx([0.9 * 1.2, 1.1 * 1.2])


def test_specimens_of_several_sizes_need_one(data: TrainingData) -> None:
    first, second = data.micro
    finer = replace(second, affine=second.affine @ np.diag([0.5, 0.5, 1.0, 1.0]))
    mixed = replace(data, micro=[first, finer])
    with pytest.raises(UserError, match=r"pixels of 0\.15 to 0\.3 mm, .* add --match_spacing"):
        look_at_scans(options_of("auto"), mixed, True, print)
    matched = Namespace(**{**vars(options_of("auto")), "match_spacing": True})
    assert look_at_scans(matched, mixed, True, print)


def test_a_resumed_run_is_not_told_of_windows(data: TrainingData) -> None:
    wrong = replace(data, windows=replace(POLICY, micro=IntensityWindow(-1000, 3000)))
    said: list[str] = []
    look_at_scans(options_of("random"), wrong, False, said.append)
    assert said == []


def test_a_scan_that_is_like_no_specimen_costs_no_run(data: TrainingData) -> None:
    (scan, mask), *_ = data.clinical
    flat = replace(scan, array=np.full_like(scan.array, -870.0))
    found = look_at_scans(
        options_of("auto"), replace(data, clinical=[(scan, mask), (flat, mask)]), True, print
    )
    alone = look_at_scans(options_of("auto"), data, True, print)
    assert found["scanner_blur"] == pytest.approx(alone["scanner_blur"], rel=0.35)
