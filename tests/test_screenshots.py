"""The pictures of the pages in the documentation: SCREENSHOTS=docs/images pytest -k screenshot.

They take minutes (the phantom, whole slices with the weights of the project, some training), so
they are made when they are asked for; tests beside the pages' code look at the pages themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser import Page
from PIL import Image

import medicaltest
import train
from util.errors import run_command_line

ROOT = Path(__file__).resolve().parents[1]
TARGET = os.environ.get("SCREENSHOTS")
COLOURS = 128  # of the PNG: enough for grey pictures and a few coloured lines

pytestmark = pytest.mark.skipif(TARGET is None, reason="pictures are made with SCREENSHOTS=FOLDER")


def save(browser: Page, name: str) -> None:
    """Save the window, with few colours, so that the file is small."""
    path = ROOT / str(TARGET) / name
    browser.screenshot(path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    assert path.stat().st_size > 20_000


def test_screenshot_of_results(tmp_path: Path, browser: Page) -> None:
    common = ["--gpu_ids", "-1", "--slices", "1:3", "--page_mb", "60"]
    for name, words in (("plain", []), ("consistent", ["--consistency"])):
        out = str(tmp_path / name)
        weights = str(ROOT / "weights" / "sr_x8.safetensors")
        command = [*common, "--checkpoint", weights, "--results_dir", out, *words]
        assert run_command_line(medicaltest.main, command) == 0
    browser.open(tmp_path / "plain" / "index.html")
    zoom = "viewer.place([arguments[0], arguments[1], 0, 3])"
    browser.run(zoom, 20, 10)
    browser.settle()
    save(browser, "result_page.png")
    folders = [str(tmp_path / name) for name in ("plain", "consistent")]
    command = ["--compare", *folders, "--results_dir", str(tmp_path)]
    assert run_command_line(medicaltest.main, command) == 0
    browser.open(tmp_path / "compare.html")
    browser.run(zoom, 20, 10)
    browser.settle()
    save(browser, "compare_page.png")


def test_screenshot_of_training(tmp_path: Path, browser: Page) -> None:
    words = [
        "--preset",
        "demo",
        "--from_scratch",
        "--name",
        "phantom",
        "--checkpoints_dir",
        str(tmp_path),
    ]
    words += ["--clinical_patch_size", "24", "--batch_num", "60", "--val_slices", "-2:"]
    words += ["--print_freq", "2", "--gpu_ids", "-1"]
    assert run_command_line(train.main, words) == 0
    browser.open(tmp_path / "phantom" / "web" / "index.html")
    # Curves and the newest pictures in one window.
    browser.driver.set_window_size(820, 1250)
    browser.run("document.body.style.zoom = 0.55")
    save(browser, "training_page.png")
