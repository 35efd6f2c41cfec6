"""Other scanners, and what the matrix makes of their scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from phantom_helpers import small_case

from methods.truth.opponents import INTERPOLATIONS, Method
from methods.truth.scanner_matrix import (
    GRID,
    OTHER_PIXELS,
    OTHER_SPECTRA,
    SPECTRA,
    Scanner,
    ScannerMatrix,
    coloured_noise,
    measure_matrix,
    scanned,
    seen_by,
)
from util.images.resampling import area_average

TRUTH = Method("SR", "model", lambda case: case.truth + 10)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_noise_has_its_level_and_its_spectrum(spectrum: str) -> None:
    noise = coloured_noise((256, 256), np.random.default_rng(0), spectrum)
    assert noise.std() == pytest.approx(1)
    power = np.abs(np.fft.fft2(noise)) ** 2
    assert power[0, 0] < 1e-6 * power.max()
    down, across = power[8:40, 0].mean(), power[0, 8:40].mean()
    assert (down > 4 * across) == (spectrum == "streaks")
    high = power[58:66, 58:66].mean()
    assert (high > power[20:30, 20:30].mean()) == (spectrum == "edge-lifting")


def test_a_scanner_blurs_and_adds_noise() -> None:
    average = area_average(small_case().truth[0], 2)
    generator = np.random.default_rng(0)
    np.testing.assert_allclose(seen_by(Scanner(0, 0), average, generator), average, atol=1e-3)
    assert seen_by(Scanner(2.0, 0), average, generator).std() < 0.8 * average.std()
    noisy = seen_by(Scanner(0, 60), average, generator)
    assert (noisy - average).std() == pytest.approx(60, rel=0.01)


def test_slices_of_another_scanner_keep_truth_and_labels() -> None:
    case = small_case()
    other = scanned(case, Scanner(1.2, 25))
    assert other.clinical.shape == (1, 16, 16)
    np.testing.assert_array_equal(other.truth, case.truth[:1])
    np.testing.assert_array_equal(other.labels, case.labels[:1])
    np.testing.assert_array_equal(other.clinical, scanned(case, Scanner(1.2, 25)).clinical)


def test_the_matrix_has_every_scanner_and_names_the_worst(tmp_path: Path) -> None:
    cases = [small_case(seed) for seed in range(4)]
    other = next(iter(OTHER_PIXELS))
    pixels = [(other, cases[0])]
    steps: list[int] = []
    matrix = measure_matrix([*INTERPOLATIONS, TRUTH], cases, pixels, lambda: steps.append(1))
    assert len(steps) == 4 * len((*GRID, *OTHER_SPECTRA)) + 1
    gains = matrix.gains("SR")
    assert list(gains) == [*GRID, *OTHER_SPECTRA, other]
    # The truth and 10 HU has the same score everywhere; the best baseline is best without noise.
    worst = min(gains, key=lambda one: gains[one][1].mean)
    assert worst.noise == 0
    (line,) = matrix.sentences()
    assert worst.name in line
    assert f"{gains[worst][1].mean:+.2f} dB" in line
    head, rows = matrix.table()
    assert len(rows) == len(gains)
    assert all(len(row) == len(head) for row in rows)
    matrix.draw(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_oracles_and_the_control_stay_out() -> None:
    oracle = Method("an oracle", "oracle", TRUTH.enlarge)
    matrix = ScannerMatrix([INTERPOLATIONS[0], oracle, TRUTH])
    matrix.add(GRID[0], small_case())
    assert set(matrix.as_json()["psnr"][GRID[0].name]) == {"nearest", "SR"}  # type: ignore[index]
