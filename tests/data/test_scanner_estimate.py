"""A known scanner is found again, from places that no patch of micro-CT shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from data.patches import shrink
from data.scanner_estimate import (
    EDGE,
    MOST_PATCHES,
    RUN,
    clinical_patches,
    estimate_scanner,
    hounsfield_of,
    micro_patches,
    thinned,
)
from data.training_data import TrainingData
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from util.errors import UserError
from util.images.point_spread import HALF_OF_GAUSSIAN

PAD = 12
MICRO_WINDOW = IntensityWindow(2500.0, 12250.0)
POLICY = WindowPolicy("window", CLINICAL_WINDOW, MICRO_WINDOW)


def lung(seed: int, count: int = 150) -> np.ndarray:
    """Runs of slices of something like lung: vessels across, and a texture between them."""
    generator = np.random.default_rng(seed)
    edge = EDGE + 2 * PAD
    runs = []
    for _ in range(count):
        waves = np.fft.fftn(generator.standard_normal((8, edge, edge)))
        grids = np.meshgrid(*(np.fft.fftfreq(n) for n in (8, edge, edge)), indexing="ij")
        frequency = np.sqrt(sum(grid**2 for grid in grids))
        frequency[0, 0, 0] = 1
        texture = np.fft.ifftn(waves * frequency**-1.5).real
        image = -880 + 30 * texture / texture.std()
        rows, columns = np.mgrid[:edge, :edge]
        for row, column, radius in generator.uniform((0, 0, 0.7), (edge, edge, 2.5), (8, 3)):
            distance = np.hypot(rows - row, columns - column)
            image += 700 * np.clip(radius + 0.5 - distance, 0, 1)
        runs.append(image[:RUN])
    return np.array(runs)


def seen_by(runs: np.ndarray, half: float, steepness: float, noise: float) -> np.ndarray:
    """Through a kernel, with noise of filtered back-projection, less its border."""
    generator = np.random.default_rng(99)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(runs.shape[-1])] * 2))
    kernel = 2.0 ** -((frequency / half) ** steepness)
    grain = np.fft.fft2(generator.standard_normal(runs.shape)) * np.sqrt(frequency) * kernel
    grain = np.fft.ifft2(grain).real
    image = np.fft.ifft2(np.fft.fft2(runs) * kernel).real + noise * grain / grain.std()
    return image[..., PAD:-PAD, PAD:-PAD].astype(np.float32)


@pytest.fixture(scope="module")
def micro() -> np.ndarray:
    return lung(1)[..., PAD:-PAD, PAD:-PAD].astype(np.float32)


@pytest.fixture(scope="module")
def clinical() -> np.ndarray:
    return lung(2)


@pytest.mark.parametrize("noise", [10.0, 25.0, 60.0])
@pytest.mark.parametrize(("width", "steepness"), [(2.4, 2.0), (2.1, 3.2), (1.3, 2.5)])
def test_point_spread_and_noise_are_found_within_a_tenth_or_3_hu(
    micro: np.ndarray, clinical: np.ndarray, width: float, steepness: float, noise: float
) -> None:
    seen = seen_by(clinical, HALF_OF_GAUSSIAN / width, steepness, noise)
    found = estimate_scanner(seen, micro)
    assert found.point_spread == pytest.approx(width, rel=0.1)
    assert found.noise == pytest.approx(noise, rel=0.1, abs=3)


def test_a_scan_without_noise_has_none(micro: np.ndarray, clinical: np.ndarray) -> None:
    found = estimate_scanner(seen_by(clinical, 0.21, 2.0, 0.0), micro)
    assert found.noise < 4


def test_too_few_patches_are_refused(micro: np.ndarray) -> None:
    with pytest.raises(UserError, match="found 3 of clinical lung, expected 20"):
        estimate_scanner(micro[:3], micro)


def test_lung_of_another_contrast_is_no_lung(micro: np.ndarray) -> None:
    with pytest.raises(UserError, match="contrast of the clinical lung"):
        estimate_scanner(micro * 0.001, micro)


def test_clinical_patches_lie_in_the_lung() -> None:
    voxels = np.random.default_rng(0).integers(-900, -800, (RUN, 3 * EDGE, 2 * EDGE), np.int16)
    mask = np.zeros(voxels.shape, bool)
    mask[:, EDGE:] = True
    voxels[~mask] = 40
    (patches,) = clinical_patches([(Volume(voxels, np.eye(4), "ct.nii"), mask)])
    assert patches.shape == (9, RUN, EDGE, EDGE)
    assert patches.max() < -800
    (nothing,) = clinical_patches([(Volume(voxels[:1], np.eye(4), "ct.nii"), mask[:1])])
    assert nothing.shape == (0, RUN, EDGE, EDGE)


def test_micro_patches_are_shrunk_to_the_clinical_pixel_and_slice() -> None:
    generator = np.random.default_rng(0)
    hounsfield = ndimage.uniform_filter(generator.uniform(-1000, 0, (12, 8 * EDGE, 8 * EDGE)), 9)
    values = (2500 + (hounsfield + 1000) * 6.5).astype(np.float32)
    ct = Volume(np.zeros((3, 4, 4), np.int16), np.diag([0.8, 0.8, 0.4, 1.0]), "ct.nii")
    fine = Volume(values, np.diag([0.1, 0.1, 0.1, 1.0]), "micro.nii")
    data = TrainingData([(ct, None)], [fine], POLICY, [])
    patches = micro_patches(data, 4)  # 8 of its pixels are a clinical one, whatever the scale
    expected = [shrink(hounsfield[4 * n : 4 * n + 4].mean(axis=0), 8) for n in range(RUN)]
    assert len(patches) == 1
    np.testing.assert_allclose(patches[0], expected, atol=0.05)
    unknown = replace(data, micro=[replace(fine, spacing_known=False)])
    assert micro_patches(unknown, 8).shape == (4, RUN, EDGE, EDGE)  # runs of its 12 slices


def test_windows_make_hounsfield_units_and_clip_nothing() -> None:
    found = hounsfield_of(np.array([1200, 2500, 9000, 12250]), POLICY)
    np.testing.assert_allclose(found, [-1200, -1000, 0, 500], atol=1e-3)


def test_a_kernel_that_ends_before_the_finest_detail_is_no_error(
    micro: np.ndarray, clinical: np.ndarray
) -> None:
    seen = seen_by(clinical, 0.16, 10.0, 0.0)
    assert estimate_scanner(seen, micro).point_spread == pytest.approx(2.8, rel=0.2)


def test_no_more_patches_than_are_needed() -> None:
    assert len(thinned(np.zeros(MOST_PATCHES))) == MOST_PATCHES
    assert len(thinned(np.zeros(2 * MOST_PATCHES - 1))) == MOST_PATCHES
