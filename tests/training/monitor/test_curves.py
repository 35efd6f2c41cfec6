from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.monitor.curves import MOST_POINTS, SECONDS_BETWEEN, Curves


def drawn(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def test_each_name_gets_a_panel_and_a_later_drawing_replaces_the_first(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.png")
    curves.draw()
    assert not curves.path.exists()
    for step in range(40):
        curves.add(step, {"G": math.sin(step), "D_A": 1.0})
    curves.draw()
    one_row = drawn(curves.path)
    assert one_row.min() < 128 < one_row.max()
    curves.add(40, dict.fromkeys(("psnr", "ssim", "consistency"), 1.0))
    curves.draw()
    assert drawn(curves.path).shape[0] == 2 * one_row.shape[0]
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_what_is_always_zero_gets_no_panel(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.png")
    unused = dict.fromkeys(("idt_A", "idt_B", "pair", "skipped"), 0.0)
    curves.add(0, unused)
    curves.draw()
    assert not curves.path.exists()
    for step in range(3):
        curves.add(step, {"G": 1.0 + step, **unused})
    curves.draw()
    one_panel = drawn(curves.path)
    curves.add(3, {"skipped": 1.0})
    curves.draw()
    assert drawn(curves.path).shape == one_panel.shape
    assert not np.array_equal(drawn(curves.path), one_panel)


def test_points_are_merged_and_keep_their_mean() -> None:
    curves = Curves(Path("unused.png"))
    count = 5 * MOST_POINTS
    for step in range(count):
        curves.add(step, {"G": step / count})
    points = np.array(curves._points["G"])
    assert MOST_POINTS // 2 <= len(points) <= MOST_POINTS
    assert (np.diff(points[:, 0]) > 0).all()
    np.testing.assert_allclose(points[:, 1], points[:, 0] / count)  # a line stays a line


def test_what_is_not_finite_leaves_a_gap(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.png")
    for step, value in enumerate((1.0, math.inf, math.nan, 2.0)):
        curves.add(step, {"G": value})
    assert [math.isnan(value) for _, value in curves._points["G"]] == [False, True, True, False]
    curves.draw()


@pytest.mark.parametrize("rows", [3, 20 * MOST_POINTS])
def test_an_earlier_part_of_the_run_is_taken_up(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "log.csv"
    lines = [f"1,{step},{step * 2.0},\n" for step in range(1, rows + 1)]
    path.write_text("epoch,step,G,D_A\n" + "".join(lines))
    curves = Curves(tmp_path / "curves.png")
    curves.add_file(path, ["G", "D_A"])
    curves.add_file(tmp_path / "missing.csv", ["G"])
    points = np.array(curves._points["G"])
    assert len(points) == min(rows, MOST_POINTS // 2)
    np.testing.assert_allclose(points[:, 1], 2 * points[:, 0])
    assert all(math.isnan(value) for _, value in curves._points["D_A"])


def test_a_file_without_rows_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("epoch,step,G\n")
    curves = Curves(tmp_path / "curves.png")
    curves.add_file(path, ["G"])
    assert curves._points == {}


def test_short_epochs_do_not_draw_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    curves = Curves(tmp_path / "curves.png")
    curves.add(1, {"G": 1.0})
    curves.draw(at_once=False)
    first = curves.path.read_bytes()
    curves.add(2, {"G": 5.0})
    now += SECONDS_BETWEEN / 2
    curves.draw(at_once=False)
    assert curves.path.read_bytes() == first
    now += SECONDS_BETWEEN
    curves.draw(at_once=False)
    second = curves.path.read_bytes()
    assert second != first
    curves.add(3, {"G": 2.0})
    curves.draw()
    assert curves.path.read_bytes() != second
