from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from util.errors import UserError
from util.images.pictures import MARGIN, best_inset, comparison_picture, unit_to_grey
from util.images.resampling import enlarge


def _disc(size: int) -> np.ndarray:
    """A bright disc on black, its centre at (1/4, 3/4) of the image, radius 1/8."""
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    return ((rows - 0.25) ** 2 + (columns - 0.75) ** 2 < 0.125**2).astype(np.float32)


def _drawn(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def _panels(drawn: np.ndarray, count: int) -> list[np.ndarray]:
    width = (drawn.shape[1] - MARGIN) // count - MARGIN
    return [drawn[:, MARGIN + i * (width + MARGIN) :][:, :width] for i in range(count)]


def test_unit_to_grey_known_answers() -> None:
    values = np.array([[-1.0, -0.5, 0.0, 1.0], [-9.0, 9.0, np.nan, np.inf]])
    found = unit_to_grey(values)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [[0, 64, 128, 255], [0, 255, 0, 255]])


def test_all_panels_show_one_field_of_view_at_one_size(tmp_path: Path) -> None:
    panels = [(f"{size} pixels", _disc(size)) for size in (64, 512, 2048)]
    comparison_picture(tmp_path / "a.png", panels, (0, 1), (0.125, 0.625, 0.25, 0.25), "A disc.")
    low, high, highest = _panels(_drawn(tmp_path / "a.png"), 3)
    # Below the titles the three columns differ at the disc's edges only.
    for other in (high, highest):
        differing = np.abs(low[40:-30].astype(int) - other[40:-30]) > 64
        # Half an input pixel along the edge; a shift by one whole pixel would be 6 %.
        assert differing.mean() < 0.03
    # In the lower row the disc fills its square: about pi / 4 of it is bright.
    width = low.shape[1]
    top = low.shape[0] - 2 * MARGIN - 18 - width
    for panel, (_, image) in zip((low, high, highest), panels, strict=True):
        size = len(image)
        share = image[size // 8 : 3 * size // 8, 5 * size // 8 : 7 * size // 8].mean()
        inset = panel[top + 2 : top + width - 2]
        assert (inset > 128).mean() == pytest.approx(share, abs=0.01)


def test_input_pixels_stay_squares_and_small_pixels_are_averaged(tmp_path: Path) -> None:
    coarse = np.indices((8, 8)).sum(axis=0) % 2
    fine = np.indices((2048, 2048)).sum(axis=0) % 2
    comparison_picture(tmp_path / "a.png", [("coarse", coarse), ("fine", fine)], (0, 1))
    drawn = _drawn(tmp_path / "a.png")
    coarse_panel, fine_panel = (panel[60:-60, 20:-20] for panel in _panels(drawn, 2))
    assert np.isin(coarse_panel, [0, 255]).mean() > 0.99
    assert np.abs(fine_panel.astype(int) - 128).max() < 30


@pytest.mark.slow
def test_detail_of_eight_fold_enlargement_is_drawn_pixel_by_pixel(tmp_path: Path) -> None:
    # Lines one pixel wide of a 4096 image, in an inset of 256 pixels.
    image = np.zeros((4096, 4096), dtype=np.float32)
    image[:, ::2] = 1.0
    comparison_picture(tmp_path / "a.png", [("x", image)] * 4, (0, 1), (0.5, 0.5, 1 / 16, 1 / 16))
    panel = _panels(_drawn(tmp_path / "a.png"), 4)[2]
    line = panel[-100, 5:-5].astype(int)
    assert np.abs(np.diff(line > 128)).sum() == pytest.approx(256, abs=12)


def test_inset_that_cuts_through_input_pixels_shows_the_field_of_the_enlargement(
    tmp_path: Path,
) -> None:
    low = np.random.default_rng(0).uniform(size=(6, 6)).astype(np.float32)
    panels = [("low", low), ("high", enlarge(low, 60, 0))]
    # 0.7 to 4.2 and 1.3 to 4.8 input pixels: whole pixels of the enlargement.
    comparison_picture(tmp_path / "a.png", panels, (0, 1), (0.7 / 6, 1.3 / 6, 3.5 / 6, 3.5 / 6))
    low_panel, high_panel = _panels(_drawn(tmp_path / "a.png"), 2)
    differing = np.abs(low_panel[40:].astype(int) - high_panel[40:]) > 16
    assert differing.mean() < 0.01


def test_frame_marks_the_inset(tmp_path: Path) -> None:
    flat = np.full((64, 64), 0.5, dtype=np.float32)
    comparison_picture(tmp_path / "a.png", [("x", flat)], (0, 1), (0.25, 0.5, 0.25, 0.25))
    drawn = _drawn(tmp_path / "a.png")
    width = drawn.shape[1] - 2 * MARGIN
    panel = drawn[MARGIN + 18 :, MARGIN:][:width, :width]
    rows, columns = np.nonzero(panel > 240)
    assert rows.min() / width == pytest.approx(0.25, abs=0.01)
    assert rows.max() / width == pytest.approx(0.5, abs=0.01)
    assert columns.min() / width == pytest.approx(0.5, abs=0.01)
    assert columns.max() / width == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_even_noise_stays_below_one_and_a_half_megabytes(tmp_path: Path, count: int) -> None:
    noise = np.random.default_rng(0).normal(size=(600, 700)).astype(np.float32)
    panels = [(f"method {number}", noise) for number in range(count)]
    comparison_picture(tmp_path / "a.png", panels, (-2, 2), best_inset(noise, 0.5), "Noise. " * 40)
    assert (tmp_path / "a.png").stat().st_size < 1.5e6


@pytest.mark.parametrize(("shape", "bright_end"), [((2000, 1), (2000, 60)), ((1, 2000), (40, 500))])
def test_a_line_of_pixels_makes_a_picture_that_can_be_looked_at(
    tmp_path: Path, shape: tuple[int, int], bright_end: tuple[int, int]
) -> None:
    line = np.zeros(shape, np.float32)
    line.ravel()[1000:] = 0.5
    panels = [("line", line), ("finer", enlarge(line, 2, order=0))]
    comparison_picture(tmp_path / "a.png", panels, (0, 1), best_inset(line))
    drawn = _drawn(tmp_path / "a.png")
    assert max(drawn.shape) < 4000
    assert drawn[40, 60] == 0
    assert drawn[bright_end] == 128


def test_grey_scale_is_the_same_for_all_panels(tmp_path: Path) -> None:
    panels = [("low", np.full((32, 32), -1000.0)), ("high", np.full((16, 16), -250.0))]
    comparison_picture(tmp_path / "a.png", panels, (-1000, 500), None, "cost: $5 and $6")
    low, high = _panels(_drawn(tmp_path / "a.png"), 2)
    assert np.median(low[60:-60]) == 0
    assert np.median(high[60:-60]) == pytest.approx(127.5, abs=1)


def test_pyplot_is_not_used() -> None:
    code = "import sys, util.images.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_best_inset_finds_the_detail_at_any_resolution() -> None:
    low = np.zeros((40, 60), dtype=np.float32)
    low[:, :10] = 3.0  # one large edge, which is not detail
    low[20:30, 40:50] = np.indices((10, 10)).sum(axis=0) % 2
    for scale in (1, 4):
        row, column, height, width = best_inset(enlarge(low, scale, 0), 0.25)
        assert (height * 40, width * 60) == (10, 10)
        assert row * 40 == pytest.approx(20, abs=1)
        assert column * 60 == pytest.approx(40, abs=1)


def test_best_inset_stays_in_its_region_and_off_its_border() -> None:
    image = np.zeros((64, 64))
    image[:, 30:34] = 5.0  # a wall, the strongest detail
    image[40:46, 8:14] = np.indices((6, 6)).sum(0) % 2
    region = np.zeros((64, 64), dtype=np.uint8)
    region[:, :30] = 255
    row, column, height, width = best_inset(image, 0.25, region)
    assert row <= 40 / 64
    assert row + height >= 46 / 64
    assert column <= 8 / 64
    assert 14 / 64 <= column + width <= 30 / 64


def test_best_inset_of_an_even_image_is_its_middle_and_equal_squares_give_the_first() -> None:
    assert best_inset(np.full((64, 64), 0.1), 0.25) == (0.375, 0.375, 0.25, 0.25)
    checks = (np.indices((32, 32)).sum(axis=0) % 2).astype(np.float32)
    assert best_inset(checks, 1.0) == (0, 0, 1, 1)
    twice = np.zeros((32, 64), dtype=np.float32)
    twice[10:18, 10:18] = twice[10:18, 40:48] = checks[:8, :8]
    assert best_inset(twice, 0.25)[1] < 0.25


def test_faults_are_named(tmp_path: Path) -> None:
    image = np.zeros((8, 8))
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="at least one panel"):
        comparison_picture(path, [], (0, 1))
    with pytest.raises(ValueError, match="is empty"):
        comparison_picture(path, [("x", image)], (1, 1))
    with pytest.raises(ValueError, match="not a part of the image"):
        comparison_picture(path, [("x", image)], (0, 1), (0.9, 0, 0.2, 0.2))
    with pytest.raises(ValueError, match="fraction is 0"):
        best_inset(image, 0)
    assert not path.exists()
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        comparison_picture(tmp_path / "taken" / "a.png", [("x", image)], (0, 1))
