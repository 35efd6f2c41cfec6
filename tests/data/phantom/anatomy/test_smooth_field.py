"""Smooth random fields: deviation, smoothness, and the same value on a grid and at points."""

from __future__ import annotations

import numpy as np
import pytest

from data.phantom.anatomy.smooth_field import SmoothField


def test_a_grid_and_its_points_agree() -> None:
    field = SmoothField(3, 7, 0.4)
    z, y, x = np.linspace(-2, 1, 7), np.linspace(5, 6, 5), np.linspace(-9, -7.5, 6)
    values = field.on_grid(z, y, x)
    assert values.dtype == np.float32
    assert values.shape == (7, 5, 6)
    c, b, a = np.meshgrid(z, y, x, indexing="ij")
    at = field.at(np.stack([a.ravel(), b.ravel(), c.ravel()], axis=1))
    np.testing.assert_allclose(values.ravel(), at, atol=1e-5)
    part = field.on_grid(z[2:4], y[1:2], x)
    np.testing.assert_allclose(part, values[2:4, 1:2], atol=1e-5)


def test_mean_deviation_and_smoothness() -> None:
    axis = np.arange(0, 12, 0.1)
    values = SmoothField(1, 2, 0.4).on_grid(axis, axis, axis)
    assert abs(values.mean()) < 0.05
    assert values.std() == pytest.approx(1, abs=0.05)
    # Steps of a quarter of the pitch are small; four pitches apart nothing is alike.
    assert np.abs(np.diff(values, axis=2)).max() < 1.5
    near, far = (
        np.corrcoef(values[..., :-n].ravel(), values[..., n:].ravel())[0, 1] for n in (1, 16)
    )
    assert near > 0.9
    assert abs(far) < 0.1


def test_seed_and_stream_choose_the_field() -> None:
    axis = np.arange(0, 4, 0.2)
    one, same, other, stream = (
        SmoothField(*words, 0.4).on_grid(axis, axis, axis)
        for words in ((1, 2), (1, 2), (2, 2), (1, 3))
    )
    np.testing.assert_array_equal(one, same)
    for unlike in (other, stream):
        assert abs(np.corrcoef(one.ravel(), unlike.ravel())[0, 1]) < 0.1
