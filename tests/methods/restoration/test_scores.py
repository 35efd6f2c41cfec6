from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from methods.restoration.scores import Score, format_table, score_slice, summarise, write_scores

METHODS = ("SR", "nearest", "linear", "cubic")


def test_a_known_score() -> None:
    """A constant error of a tenth of the data range is 20 dB, in SR alone."""
    truth = np.random.default_rng(0).uniform(-0.5, 0.5, (16, 16)).astype(np.float32)
    scores = score_slice(3, {"SR": truth + np.float32(0.2), "cubic": truth}, truth, None)
    assert scores[0]["psnr"] == pytest.approx(20.0, abs=1e-4)
    assert scores[1]["psnr"] == math.inf
    assert scores[1]["ssim"] == pytest.approx(1.0)
    assert float(scores[0]["ssim"]) < 1.0
    assert [row["slice"] for row in scores] == [3, 3]
    assert [row["pixels"] for row in scores] == [256, 256]


def test_a_mask_limits_what_is_scored() -> None:
    truth = np.random.default_rng(1).uniform(-0.5, 0.5, (16, 16)).astype(np.float32)
    image = truth.copy()
    image[:, 8:] += 0.2
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:, 8:] = 2
    (inside,) = score_slice(0, {"SR": image}, truth, mask)
    assert inside["psnr"] == pytest.approx(20.0, abs=1e-4)
    assert inside["pixels"] == 128
    (outside,) = score_slice(0, {"SR": image}, truth, mask == 0)
    assert outside["psnr"] == math.inf


def test_totals_pool_squared_errors_over_pixels() -> None:
    def row(method: str, index: int, decibel: float, pixels: int) -> Score:
        return {"slice": index, "method": method, "psnr": decibel, "ssim": 0.5, "pixels": pixels}

    scores = [row(m, 0, 20.0, 100) for m in METHODS] + [row(m, 1, math.inf, 300) for m in METHODS]
    summary = summarise(scores)
    # A quarter of the pixels has 20 dB and the rest no error: 20 + 10 log10(4) dB.
    assert summary["SR"]["psnr"] == pytest.approx(26.0206, abs=1e-3)
    perfect = summarise([row(method, 0, math.inf, 10) for method in METHODS])
    assert perfect["cubic"] == {"psnr": math.inf, "ssim": 0.5}


def test_the_table_is_plain_text() -> None:
    table = format_table({"SR": {"psnr": 21.5, "ssim": 0.54321}, "cubic": {"psnr": 9, "ssim": 1}})
    assert table.splitlines() == [
        "method           PSNR (dB)      SSIM",
        "SR                   21.50    0.5432",
        "cubic                 9.00    1.0000",
    ]


def test_a_table_has_one_row_a_slice_and_method(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).uniform(-0.5, 0.5, (16, 16)).astype(np.float32)
    scores = score_slice(0, {"SR": truth + np.float32(0.2), "cubic": truth}, truth, None)
    write_scores(tmp_path / "scores.csv", scores)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["slice", "method", "psnr", "ssim", "pixels"]
    assert [(row["slice"], row["method"]) for row in rows] == [("0", "SR"), ("0", "cubic")]
    assert float(rows[0]["psnr"]) == scores[0]["psnr"]
    assert rows[1]["psnr"] == "inf"
