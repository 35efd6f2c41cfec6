"""Tests for data/windows.py."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from data.volumes.volume import Volume
from data.windows import (
    CLINICAL_WINDOW,
    SAMPLED_VOXELS,
    IntensityWindow,
    WindowPolicy,
    parse_windows,
    percentile_window,
)
from util.errors import UserError


def make_volume(array: np.ndarray, source: str = "scans/case7.nii.gz") -> Volume:
    return Volume(array=array, affine=np.eye(4), source=source)


def test_known_values_of_the_clinical_window() -> None:
    values = np.array([-3024, -1000, -250, 125, 500, 3071], np.int16)
    unit = CLINICAL_WINDOW.to_unit(values)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [-1, -1, 0, 0.5, 1, 1], atol=1e-6)
    assert CLINICAL_WINDOW.outside(values).tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize(("low", "high"), [(-1000, 500), (0, 15000), (0.1, 0.2), (-7, 250)])
def test_values_inside_survive_the_round_trip(low: float, high: float) -> None:
    window = IntensityWindow(low, high)
    values = np.random.default_rng(0).uniform(low, high, (5, 4, 30)).astype(np.float32)
    unit = window.to_unit(values)
    assert unit.shape == values.shape
    assert unit.min() >= -1
    assert unit.max() <= 1
    precision = 4 * float(np.finfo(np.float32).eps) * max(abs(low), abs(high), high - low)
    np.testing.assert_allclose(window.to_physical(unit), values, rtol=0, atol=precision)


def test_whole_hu_come_back_exactly_after_rounding() -> None:
    values = np.arange(-1000, 501, dtype=np.int16)
    back = CLINICAL_WINDOW.to_physical(CLINICAL_WINDOW.to_unit(values))
    assert np.array_equal(np.rint(back), values)


def test_to_unit_does_not_change_its_input() -> None:
    values = np.array([100.0, 900.0], np.float32)
    CLINICAL_WINDOW.to_unit(values)
    assert values.tolist() == [100.0, 900.0]


@pytest.mark.parametrize(
    ("low", "high"), [(500, -1000), (3, 3), (float("nan"), 1), (0, float("inf"))]
)
def test_empty_window_is_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match="give LOW:HIGH with LOW below HIGH"):
        IntensityWindow(low, high)


def test_policy_travels_as_plain_values() -> None:
    policy = WindowPolicy("minmax", CLINICAL_WINDOW, IntensityWindow(0, 255))
    assert WindowPolicy.from_dict(json.loads(json.dumps(policy.as_dict()))) == policy


@pytest.mark.parametrize("stored", [{}, {"normalization": "window"}, None, {"x": 1}])
def test_a_stored_policy_without_its_parts_is_refused(stored: Any) -> None:
    with pytest.raises(UserError, match="the checkpoint's intensity windows are damaged"):
        WindowPolicy.from_dict(stored)


def test_fixed_policy_gives_each_domain_its_window() -> None:
    policy = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(0, 255))
    constant = make_volume(np.zeros((1, 2, 2), np.int16))
    assert policy.window_for(constant, "clinical") == CLINICAL_WINDOW
    assert policy.window_for(constant, "micro") == IntensityWindow(0, 255)


def test_minmax_is_each_volumes_own_range_in_physical_units() -> None:
    policy = WindowPolicy("minmax", CLINICAL_WINDOW, IntensityWindow(0, 255))
    array = np.array([[[0, 5]], [[20, 7]]], np.int16)
    volume = Volume(array, np.eye(4), "ct.nii.gz", slope=2.0, intercept=-1024.0)
    assert policy.window_for(volume, "clinical") == IntensityWindow(-1024, -984)


def test_minmax_clips_micro_ct_first_as_published() -> None:
    policy = WindowPolicy("minmax", CLINICAL_WINDOW, IntensityWindow(0, 255))
    volume = make_volume(np.array([[[-500, 20000, 3]]], np.int16))
    assert policy.window_for(volume, "micro") == IntensityWindow(0, 15000)
    assert policy.window_for(volume, "clinical") == IntensityWindow(-500, 20000)


def test_minmax_refuses_a_constant_volume_by_name() -> None:
    policy = WindowPolicy("minmax", CLINICAL_WINDOW, IntensityWindow(0, 255))
    with pytest.raises(UserError, match=r"scans/case7\.nii\.gz .*one intensity.*fixed window"):
        policy.window_for(make_volume(np.full((2, 2, 2), 9, np.int16)), "clinical")
    below = make_volume(np.array([[[-5, -4]]], np.int16))
    with pytest.raises(UserError, match=r"case7"):
        policy.window_for(below, "micro")


def test_unknown_normalization_is_refused() -> None:
    with pytest.raises(UserError, match="'zscore' is not known: give one of window, minmax"):
        WindowPolicy("zscore", CLINICAL_WINDOW, CLINICAL_WINDOW)  # type: ignore[arg-type]


def test_percentile_window_ignores_a_few_extremes_and_repeats_itself() -> None:
    generator = np.random.default_rng(1)
    array = generator.uniform(0, 1000, (20, 60, 60)).astype(np.float32)
    array[3, 3, 3] = 1e6
    window = percentile_window([make_volume(array)], 1.0, 99.0)
    assert window.low == pytest.approx(10, abs=3)
    assert window.high == pytest.approx(990, abs=3)
    assert percentile_window([make_volume(array)], 1.0, 99.0) == window


def test_percentile_window_pools_the_volumes_alike() -> None:
    small = make_volume(np.full((1, 8, 8), 0, np.int16))
    large = make_volume(np.full((30, 8, 8), 100, np.int16))
    both = percentile_window([large, small], 0.0, 100.0)
    assert (both.low, both.high) == (0, 100)


def test_percentile_window_reads_a_bounded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(values: np.ndarray, points: list[float]) -> np.ndarray:
        seen.append(values.size)
        return np.array([0.0, 1.0])

    monkeypatch.setattr("data.windows.np.percentile", spy)
    huge = np.broadcast_to(np.zeros((1, 1, 1), np.uint8), (4000, 600, 600))
    percentile_window([make_volume(huge), make_volume(huge)])
    assert SAMPLED_VOXELS / 4 < seen[0] <= SAMPLED_VOXELS * 1.1


def test_percentile_window_refuses_constant_volumes_and_none_at_all() -> None:
    with pytest.raises(UserError, match="case7"):
        percentile_window([make_volume(np.zeros((2, 4, 4), np.uint8))])
    with pytest.raises(UserError, match="give at least one"):
        percentile_window([])


def test_window_words() -> None:
    assert parse_windows([]) == {}
    assert parse_windows(["clinical=-1000:500", "micro=auto"]) == {
        "clinical": IntensityWindow(-1000, 500),
        "micro": None,
    }
    assert parse_windows(["micro=0.5:2.5e2"]) == {"micro": IntensityWindow(0.5, 250)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lung=0:1"], "'lung=0:1' names no known domain"),
        (["-1000:500"], "names no known domain"),
        (["micro=0-255"], "'micro=0-255' is not DOMAIN=LOW:HIGH"),
        (["micro=0:"], "is not DOMAIN=LOW:HIGH"),
        (["micro=0:1:2"], "is not DOMAIN=LOW:HIGH"),
        (["micro=255:0"], "255:0 is empty"),
        (["clinical=-1e300:1e300"], "reaches beyond 1e\\+09, which no scan holds"),
        (["micro=auto", "micro=0:1"], "given twice"),
    ],
)
def test_malformed_window_words_say_what_to_write(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_windows(words)


def test_the_minmax_window_of_a_slice_does_not_depend_on_the_selection() -> None:
    array = np.arange(24, dtype=np.int16).reshape(3, 2, 4)
    volume = Volume(array, np.eye(4), "memory")
    policy = WindowPolicy("minmax", CLINICAL_WINDOW, CLINICAL_WINDOW)
    whole = policy.window_for(volume, "clinical")
    part = volume.select_slices(1, 3).select_slices(0, 1)
    assert policy.window_for(part, "clinical") == whole == IntensityWindow(0, 23)


def test_a_window_of_the_public_setting_begins_at_zero() -> None:
    """HU -1000 to 500 as 0 to 1; scores are taken on [-1, 1] as with any other window."""
    window = IntensityWindow(-1000, 500, unit_low=0.0)
    values = np.array([-2000.0, -1000.0, -250.0, 500.0, 900.0])
    unit = window.to_unit(values)
    np.testing.assert_allclose(unit, [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(window.to_physical(unit), [-1000, -1000, -250, 500, 500])
    np.testing.assert_allclose(window.standard(unit), [-1, -1, 0, 1, 1])
    plain = IntensityWindow(-1000, 500)
    assert plain.standard(unit) is unit
    assert IntensityWindow.from_dict(window.as_dict()) == window
    assert "unit_low" not in plain.as_dict()  # results of before can be resumed
