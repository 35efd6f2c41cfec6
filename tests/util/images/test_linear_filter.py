"""Linear enlargement with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from util.errors import UserError
from util.images.linear_filter import FilterFit, wiener_enlarge, wiener_gain
from util.images.resampling import area_average

GENERATOR = np.random.default_rng(0)


def smooth(edge: int, wave: float) -> np.ndarray:
    """A band-limited image in HU."""
    rows, columns = (np.arange(edge) + 0.5) / wave * 2 * np.pi, (np.arange(edge) + 0.5)
    return -850 + 100 * np.cos(rows)[:, None] * np.cos(columns / wave * 2 * np.pi + 1)[None]


def test_a_filter_learns_what_a_filter_can_do() -> None:
    """A linear map of 3 x 3 input pixels, another for each of four places, is found exactly."""
    kernels = GENERATOR.normal(0, 0.2, (2, 2, 3, 3))
    image = GENERATOR.normal(-850, 100, (60, 60))
    truth = np.zeros((120, 120))
    padded = np.pad(image, 1, mode="symmetric")
    for down in range(2):
        for across in range(2):
            for row in range(3):
                for column in range(3):
                    part = padded[row : row + 60, column : column + 60]
                    truth[down::2, across::2] += kernels[down, across, row, column] * part
    fit = FilterFit(2)
    fit.add(image, truth + 7, np.ones(image.shape))
    found = fit.solve().enlarge(image)
    np.testing.assert_allclose(found, truth + 7, atol=0.5)


def test_it_learns_inside_the_mask_alone() -> None:
    image = GENERATOR.normal(-850, 100, (40, 40))
    truth = image.repeat(2, axis=0).repeat(2, axis=1)
    mask = np.zeros(image.shape, bool)
    mask[:, :20] = True
    truth[:, 40:] = 5000
    fit = FilterFit(2)
    fit.add(image, truth, mask)
    np.testing.assert_allclose(fit.solve().enlarge(image)[:, :40], truth[:, :40], atol=1)


def test_with_noise_it_is_better_than_any_single_filter_of_its_kind() -> None:
    truth = smooth(128, 64)
    low = area_average(truth, 2) + GENERATOR.normal(0, 60, (64, 64))
    fit = FilterFit(2)
    fit.add(low, truth, np.ones(low.shape))
    repeated = low.repeat(2, axis=0).repeat(2, axis=1)
    error = np.abs(fit.solve().enlarge(low) - truth).mean()
    assert error < 0.4 * np.abs(repeated - truth).mean()


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(UserError, match="learned from no pixel"):
        FilterFit(2).solve()


def test_wiener_undoes_the_average_where_there_is_no_noise() -> None:
    truth = smooth(128, 32)
    found = wiener_enlarge(area_average(truth, 4), 4, 1.0, np.ones_like)
    np.testing.assert_allclose(found[16:-16, 16:-16], truth[16:-16, 16:-16], atol=3)


def test_wiener_keeps_the_mean_and_leaves_out_what_has_no_gain() -> None:
    noise = -850 + GENERATOR.normal(0, 50, (64, 64))
    found = wiener_enlarge(noise, 2, 1.0, lambda frequency: 1.0 * (frequency == 0))
    assert found.shape == (128, 128)
    assert found.mean() == pytest.approx(noise.mean(), abs=0.1)
    assert found.std() < 1


def test_the_gain_is_signal_over_signal_and_noise() -> None:
    truth = GENERATOR.normal(-850, 100, (8, 64, 64))
    seen = 0.5 * truth + GENERATOR.normal(0, 50, truth.shape)
    frequency, gain = wiener_gain(seen, truth, np.ones_like(truth), 0.5)
    assert frequency[0] == 0
    assert frequency[1] == pytest.approx(1 / 32)
    assert gain[0] == 1
    # 0.5 S / (0.25 S + N) with S = 100^2 and N = 50^2.
    assert gain[5:].mean() == pytest.approx(1.0, abs=0.03)
    nothing = wiener_gain(seen, truth, np.zeros_like(truth), 0.5)[1]
    assert nothing[1:].max() == 0
