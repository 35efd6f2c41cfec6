"""The scanner models: units, noise and blur as documented."""

from __future__ import annotations

import numpy as np
import pytest

from data.phantom.scanners import KERNELS, ClinicalScanner, MicroScanner, blur, rings, smooth_noise


def test_micro_units_map_air_and_water() -> None:
    scanner = MicroScanner(noise=0, ring=0)
    stored = scanner.acquire(np.array([[[-1000.0, 0.0, -500.0]]]), np.random.default_rng(0))
    assert stored.dtype == np.uint16
    assert stored.ravel().tolist() == [2500, 9000, 5750]


def test_micro_values_lie_in_the_papers_range_and_air_is_not_zero() -> None:
    scanner = MicroScanner()
    air = scanner.acquire(np.full((4, 64, 64), -1000.0), np.random.default_rng(0))
    assert air.min() > 300
    assert air.mean() == pytest.approx(2500, abs=10)
    expected = np.sqrt(scanner.noise**2 + scanner.ring_share * scanner.ring**2)
    assert air.std() == pytest.approx(expected, rel=0.1)
    assert scanner.acquire(np.full((4, 64, 64), 60.0), np.random.default_rng(0)).max() < 15000


def test_clinical_units_are_hounsfield_and_clipped() -> None:
    scanner = ClinicalScanner(noise=0)
    stored = scanner.acquire(
        np.array([[[-1200.0, -850.4, 40.6, 5000.0]]]), np.random.default_rng(0)
    )
    assert stored.dtype == np.int16
    assert stored.ravel().tolist() == [-1024, -850, 41, 3071]


def test_clinical_noise_has_its_deviation_is_correlated_and_has_no_mean() -> None:
    scanner = ClinicalScanner(slice_thickness=1.0)
    noise = scanner.acquire(np.zeros((24, 96, 96)), np.random.default_rng(1)).astype(float)
    assert noise.std() == pytest.approx(scanner.noise, rel=0.05)
    assert abs(noise.mean()) < 0.5
    near = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    between_slices = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert 0.3 < near < 0.9
    # A blur by (a, 1, a) leaves 2 a / (1 + 2 a^2) to the neighbour; a is exp(-1 / (2 sigma^2)).
    beside = np.exp(-1 / (2 * (scanner.noise_along / 2.3548) ** 2))
    assert between_slices == pytest.approx(2 * beside / (1 + 2 * beside**2), abs=0.03)
    assert 0.2 < between_slices < 0.4
    alone = ClinicalScanner(slice_thickness=1.0, noise_along=0)
    noise = alone.acquire(np.zeros((24, 96, 96)), np.random.default_rng(1)).astype(float)
    assert abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.05


def test_noise_power_goes_with_frequency_times_the_squared_mtf() -> None:
    scanner = ClinicalScanner(kernel="soft")
    noise = scanner.unit_noise((64, 128, 128), np.random.default_rng(0))
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(128, 0.5)] * 2))
    expected = frequency * KERNELS["soft"].transfer(frequency) ** 2
    rings_of = [
        (frequency > low) & (frequency < low + 0.05) for low in (0.05, 0.15, 0.25, 0.35, 0.45)
    ]
    found, wanted = (
        np.array([map_[ring].mean() for ring in rings_of]) for map_ in (power, expected)
    )
    np.testing.assert_allclose(found / found.sum(), wanted / wanted.sum(), rtol=0.1)
    assert noise.std() == pytest.approx(1, rel=0.02)
    assert power[0, 0] < 1e-6 * power.max()  # none at frequency zero


@pytest.mark.filterwarnings("error")
def test_slices_of_one_pixel_have_noise() -> None:
    noise = ClinicalScanner().unit_noise((4000, 1, 1), np.random.default_rng(0))
    assert noise.shape == (4000, 1, 1)
    assert noise.std() == pytest.approx(1, rel=0.1)  # of neighbours that are alike


@pytest.mark.parametrize(("dose", "thickness"), [(1.0, 1.0), (0.25, 1.0), (1.0, 0.25)])
def test_noise_grows_with_less_dose_and_thinner_slices(dose: float, thickness: float) -> None:
    scanner = ClinicalScanner(dose=dose, slice_thickness=thickness)
    noise = scanner.acquire(np.zeros((12, 128, 128)), np.random.default_rng(2))
    assert noise.std() == pytest.approx(14.5 / np.sqrt(dose * thickness), rel=0.05)
    assert scanner.deviation == pytest.approx(14.5 / np.sqrt(dose * thickness))


def test_noise_repeats_by_generator() -> None:
    first, second = (
        smooth_noise((3, 20, 20), np.random.default_rng(4), (0.5, 0.5, 0.5)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_passes_half_and_a_tenth_where_it_says(kernel: str) -> None:
    """Contrast of a sine wave after the scanner, against before."""
    scanner = ClinicalScanner(pixel=0.25, kernel=kernel, noise=0)
    curve = KERNELS[kernel]
    for frequency, passed in ((curve.half, 0.5), (curve.tenth, 0.1)):
        count = round(128 * frequency * scanner.pixel)  # whole waves, no leak
        wave = np.cos(2 * np.pi * count * (np.arange(128) + 0.5) / 128)
        seen = scanner.blur(np.broadcast_to(wave, (1, 128, 128)).astype(np.float32))
        exact = curve.transfer(np.array(count / 128 / scanner.pixel))
        assert seen[0, 64].max() / wave.max() == pytest.approx(float(exact), abs=0.01)
        assert float(curve.transfer(np.array(frequency))) == pytest.approx(passed)
    assert float(curve.transfer(np.array(0.0))) == 1


def test_a_kernel_keeps_means_and_none_keeps_everything() -> None:
    image = np.random.default_rng(0).normal(size=(2, 40, 30)).astype(np.float32)
    blurred = ClinicalScanner(kernel="soft").blur(image)
    assert blurred.shape == image.shape
    assert blurred.mean() == pytest.approx(image.mean(), abs=1e-5)
    np.testing.assert_allclose(ClinicalScanner(kernel="none").blur(image), image, atol=1e-5)


def test_micro_blur_has_the_stated_width_and_keeps_the_sum() -> None:
    scanner = MicroScanner(voxel=0.05, psf_fwhm=0.2)
    point = np.zeros((31, 31, 31))
    point[15, 15, 15] = 1
    spread = scanner.blur(point)
    assert spread.sum() == pytest.approx(1, abs=1e-3)
    # Full width at half maximum: 0.2 mm are 4 voxels.
    assert spread[15, 15, 17] / spread.max() == pytest.approx(0.5, abs=0.02)
    assert spread[17, 15, 15] / spread.max() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(blur(point, (0.0, 0.0, 0.0)), point)


def test_rings_are_rings_around_the_middle_and_differ_from_slice_to_slice() -> None:
    drawn = rings((3, 65, 65), np.random.default_rng(0), 50.0, 0.3)
    assert drawn.shape == (3, 65, 65)
    np.testing.assert_array_equal(drawn, drawn[:, ::-1])
    np.testing.assert_array_equal(drawn, drawn.transpose(0, 2, 1))
    assert 0.1 < np.mean(drawn[0, 32] != 0) < 0.6
    assert not np.array_equal(drawn[0], drawn[1])
    assert drawn[drawn != 0].std() == pytest.approx(50, rel=0.3)


def test_voxels_are_cubes_unless_told_and_slices_as_thick_as_they_say() -> None:
    assert MicroScanner().spacing == (0.0625, 0.0625, 0.0625)
    assert MicroScanner(depth=0.07).spacing == (0.0625, 0.0625, 0.07)
    assert MicroScanner(voxel=0.03).margin[0] > MicroScanner().margin[0]
    assert ClinicalScanner(pixel=0.7, slice_thickness=1.25).spacing == (0.7, 0.7, 1.25)


def test_a_slice_is_its_profile_wide() -> None:
    """A sheet seen through the profile, slice by slice: mass kept, and wider than a box."""
    for profile, neighbours in ((0.0, 0.0), (0.4, 0.07)):
        scanner = ClinicalScanner(profile=profile)
        reach = scanner.reach(8)
        thin = np.zeros((2 * reach + 40, 3, 3), np.float32)
        thin[reach + 16 : reach + 24] = 1  # the third slice of five, in full
        slices = scanner.slices(thin, 8)[:, 1, 1]
        assert slices.sum() == pytest.approx(1, abs=1e-5)
        assert slices[1] == pytest.approx(neighbours, abs=0.015)
        assert slices[1] == pytest.approx(slices[3])
    assert ClinicalScanner(profile=0.0).reach(8) == 0
