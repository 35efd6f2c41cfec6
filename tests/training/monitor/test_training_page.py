from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Page
from PIL import Image

from training.monitor.training_page import TrainingPage


class _Page(HTMLParser):
    """Headings, pictures' attributes, and all that an address could load from elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self._in_heading = False
        self.text = (folder / "index.html").read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._in_heading = tag == "h2"
        if tag == "img":
            self.pictures.append(values)
        self.links += [value for key in ("src", "href") if (value := values.get(key))]

    def handle_data(self, data: str) -> None:
        if self._in_heading and data.strip():
            self.headings.append(data.strip())


def _images(value: int) -> dict[str, np.ndarray]:
    return {
        "real_A": np.full((32, 32), value, dtype=np.uint8),
        "fake_B": np.full((256, 128), value, dtype=np.uint8),
    }


def test_page_shows_the_newest_first_with_links_that_hold(tmp_path: Path) -> None:
    page = TrainingPage(tmp_path / "web", "lung <8x>", 256)
    page.add(1, 2000, _images(10))
    page.add(2, 4000, _images(20))
    shown = _Page(tmp_path / "web")
    assert shown.headings == ["epoch 2, iteration 4,000", "epoch 1, iteration 2,000"]
    assert [picture["alt"] for picture in shown.pictures] == ["real_A", "fake_B"] * 2
    assert {picture["width"] for picture in shown.pictures} == {"256"}
    assert [picture["height"] for picture in shown.pictures] == ["256", "512"] * 2
    assert {picture["loading"] for picture in shown.pictures} == {"lazy"}
    assert "lung &lt;8x&gt;" in shown.text
    assert shown.links
    for link in shown.links:
        assert (tmp_path / "web" / link).is_file()
        assert ":" not in link
        assert not link.startswith("/")
    with Image.open(tmp_path / "web" / str(shown.pictures[1]["src"])) as image:
        np.testing.assert_array_equal(np.asarray(image), _images(20)["fake_B"])


def test_resumed_page_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = TrainingPage(tmp_path / "whole", "x", 256)
    for epoch in range(1, 5):
        whole.add(epoch, epoch * 100, _images(epoch))

    cut = TrainingPage(tmp_path / "cut", "x", 256)
    for epoch in range(1, 4):
        cut.add(epoch, epoch * 100, _images(epoch))
    resumed = TrainingPage(tmp_path / "cut", "x", 256)  # from the checkpoint of epoch 2
    resumed.add(3, 300, _images(3))
    resumed.add(4, 400, _images(4))
    names = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}
    assert {path.relative_to(tmp_path / "cut") for path in (tmp_path / "cut").rglob("*")} == names
    for name in names:
        if (tmp_path / "cut" / name).is_file():
            assert (tmp_path / "cut" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()


def test_titles_alike_in_file_names_keep_their_own_pictures(tmp_path: Path) -> None:
    images = {"a/b": np.zeros((2, 2), np.uint8), "a b": np.full((2, 2), 9, np.uint8)}
    TrainingPage(tmp_path, "x", 64).add(1, 1, images)
    shown = _Page(tmp_path)
    assert len({picture["src"] for picture in shown.pictures}) == 2


def test_two_hundred_epochs_stay_light(tmp_path: Path) -> None:
    page = TrainingPage(tmp_path, "x", 256)
    page._rows = [
        {
            "epoch": epoch,
            "iterations": epoch,
            "images": [
                {"label": f"image_{n}", "file": f"images/epoch{epoch:04d}_{n}.png", "height": 256}
                for n in range(8)
            ],
        }
        for epoch in range(1, 200)
    ]
    page.add(200, 200, _images(1))
    assert (tmp_path / "index.html").stat().st_size < 500_000
    assert _Page(tmp_path).text.count("<script") == 0


def test_browsers_load_new_curves_anew(tmp_path: Path) -> None:
    curves = tmp_path / "curves.png"
    page = TrainingPage(tmp_path / "web", "run", 128, "../curves.png")
    seen = []
    for content in (None, b"first", b"second", b"second"):
        if content is not None:
            curves.write_bytes(content)
        page.write()
        seen += re.findall(r"curves\.png\?(\d+)", (tmp_path / "web" / "index.html").read_text())
    assert len(set(seen)) == 3
    assert seen[2] == seen[3]


def test_a_page_that_cannot_be_written_says_so_once_and_lets_training_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "web").write_text("in the way")
    page = TrainingPage(tmp_path / "web", "x", 256)
    page.add(1, 1, _images(1))
    page.add(2, 2, _images(2))
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "training page: cannot write" in told
    (tmp_path / "web").unlink()
    page.add(3, 3, _images(3))
    assert _Page(tmp_path / "web").headings[0] == "epoch 3, iteration 3"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"rows": [{"epoch": 1}]}', json.dumps({"rows": [{"epoch": "1"}]})]
)
def test_state_that_cannot_be_read_does_not_stop_training(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.json").write_text(content)
    page = TrainingPage(tmp_path, "x", 256)
    assert "rows.json cannot be read" in capsys.readouterr().err
    assert (tmp_path / "rows.json.damaged").read_text() == content
    page.add(1, 1, _images(1))
    assert (tmp_path / "index.html").is_file()


def test_each_direction_has_a_row_below_the_curves(tmp_path: Path, browser: Page) -> None:
    figure = np.full((90, 120), 128, np.uint8)
    Image.fromarray(figure).save(tmp_path / "curves.png")
    page = TrainingPage(tmp_path / "web", "run", 128, "../curves.png")
    sizes = {"real_A": 4, "fake_B": 32, "rec_A": 4, "real_B": 32, "fake_A": 4, "rec_B": 32}
    images = {name: np.full((size, size), 99, np.uint8) for name, size in sizes.items()}
    for epoch in (1, 2):
        page.add(epoch, 100 * epoch, images)
    page.write(finished=True)
    browser.open(tmp_path / "web" / "index.html")
    rows = browser.run(
        "return [...document.querySelectorAll('section .row')].map((row) =>"
        "[...row.querySelectorAll('figcaption')].map((one) => one.textContent))"
    )
    assert rows == [["real_A", "fake_B", "rec_A"], ["real_B", "fake_A", "rec_B"]] * 2
    # A patch of 4 pixels and its enlargement of 32 show the same field of view at the same size.
    shown = browser.run(
        "return [...document.querySelectorAll('figure img')].map((one) =>"
        "[one.getBoundingClientRect().width, one.getBoundingClientRect().height])"
    )
    assert {tuple(size) for size in shown} == {(128, 128)}
    assert browser.run("return document.querySelector('img').naturalWidth") == 120
    assert browser.errors() == []
