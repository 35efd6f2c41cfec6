from __future__ import annotations

import re
import sys

import pytest

from models.inference.memory_plan import BAND_COPIES, SliceMemory, bands_within, with_fewer_maps
from util.errors import UserError

PUBLISHED = SliceMemory(ngf=64, doublings=3, itemsize=4, band_values=1 << 19)


def test_the_sum_is_that_of_the_maps() -> None:
    memory = SliceMemory(ngf=8, doublings=3, itemsize=2, band_values=1000)
    bands = BAND_COPIES * 4 * 1000
    trunk, result = 3 * 8 * 2, 64 * 4
    # The tail's maps have 16, 8 and 4 channels, on grids 1, 2 and 4 times as fine: the shuffle
    # behind each is done by the next reader.
    tail = [16 * 2, 8 * 4 * 2, 4 * 16 * 2]
    # What stands before a shuffle has four times its channels: 16, 32 and 64 values a pixel.
    assert tail == [32, 64, 128]
    for kept in range(4):
        assert memory.needed(100, kept) == 100 * (trunk + sum(tail[:kept]) + result) + bands
    assert memory.needed(0, 0) == bands


def test_more_takes_more() -> None:
    for kept in range(4):
        assert PUBLISHED.needed(512 * 512, kept) < PUBLISHED.needed(512 * 513, kept)
    for kept in range(3):
        assert PUBLISHED.needed(512 * 512, kept) < PUBLISHED.needed(512 * 512, kept + 1)
    half = SliceMemory(64, 3, 2, 1 << 19)
    assert half.needed(512 * 512, 3) < PUBLISHED.needed(512 * 512, 3)
    assert SliceMemory(64, 2, 4, 1 << 19).needed(512 * 512, 2) < PUBLISHED.needed(512 * 512, 2)


def test_a_bigger_budget_keeps_as_many_maps_or_more() -> None:
    budgets = range(PUBLISHED.needed(256 * 256, 0), PUBLISHED.needed(256 * 256, 3) + 10**7, 10**6)
    kept = [PUBLISHED.levels_to_keep(256, 256, budget) for budget in budgets]
    assert kept == sorted(kept)
    assert set(kept) == {0, 1, 2, 3}


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 5])
def test_a_budget_is_used_to_the_byte(kept: int, count: int) -> None:
    exactly = PUBLISHED.needed(count * 100 * 70, kept)
    assert PUBLISHED.levels_to_keep(100, 70, exactly, count) == kept
    if kept:
        assert PUBLISHED.levels_to_keep(100, 70, exactly - 1, count) == kept - 1


def test_a_slice_that_does_not_fit_is_refused_with_what_to_do() -> None:
    least = PUBLISHED.needed(2000 * 3000, 0)
    message = (
        f"a slice of 3000x2000 pixels takes at least {least / 1e9:.1f} GB, --max_memory or the "
        "free memory allows 1.0 GB: allow more, use --precision bf16, or crop the volume"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        PUBLISHED.levels_to_keep(2000, 3000, 10**9)
    with pytest.raises(UserError):
        PUBLISHED.levels_to_keep(2000, 3000, least - 1)
    assert PUBLISHED.levels_to_keep(2000, 3000, least) == 0
    with pytest.raises(
        UserError, match=r"pixels takes at least 12\.6 MB, .* allows 1\.0 kB: allow"
    ):
        PUBLISHED.levels_to_keep(4, 4, 1000)


def test_what_succeeds_is_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    def release() -> None:
        raise AssertionError("memory was given back")

    assert with_fewer_maps(lambda kept: kept * 2, 3, release) == (6, 3)
    assert capsys.readouterr().err == ""


def test_memory_is_given_back_once_the_failed_try_holds_none() -> None:
    """An error that is still handled keeps the failed call's frames, and with them its maps."""
    events = []

    def work(kept: int) -> int:
        events.append(f"try {kept}")
        if kept:
            raise MemoryError
        return kept

    def release() -> None:
        events.append("release" if sys.exc_info()[0] is None else "release in the handler")

    assert with_fewer_maps(work, 2, release) == (0, 0)
    assert events == ["try 2", "release", "try 1", "release", "try 0"]


def test_a_trunk_computed_elsewhere_may_take_more_maps() -> None:
    more = SliceMemory(64, 3, 4, 1 << 19, trunk_maps=5)
    for kept in range(4):
        assert more.needed(100, kept) - PUBLISHED.needed(100, kept) == 100 * 2 * 64 * 4


@pytest.mark.parametrize("factor", [1, 8])
def test_bands_shrink_with_the_budget_and_leave_most_of_it(factor: int) -> None:
    usual = 1 << 19
    assert bands_within(1 << 40, usual, factor * usual) == usual
    for budget in (1 << 24, 1 << 26, 1 << 28):
        values = bands_within(budget, usual, factor * usual)
        # What the plan counts is the highest band.
        plan = SliceMemory(64, 3, 4, factor * values)
        assert plan.needed(0, 0) <= budget / 4
