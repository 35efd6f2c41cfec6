"""The page of a result, in a browser: what it shows is what the files hold."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Page
from method_helpers import (
    IdentityResolver,
    affines,
    lung_like,
    read_nifti,
    stub_model,
    write_ct,
)
from option_helpers import evaluation_options

import methods.inputs
import methods.super_resolution.method
from methods.super_resolution.method import super_resolution
from util.pages.viewer_page import _packed_niivue, niivue_module

SIZE = (40, 32, 12)  # x, y, z
SCALE = 4
UPPER_LEFT = 0.2  # where the pointer goes, as a share of the canvas


def make(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    affine: np.ndarray,
    *words: str,
    slices: int = SIZE[2],
) -> Path:
    """Super-resolve a small case with the stand-in; returns the results folder."""
    size = (SIZE[0], SIZE[1], slices)
    resolver = IdentityResolver(SCALE, shift=0.1)
    monkeypatch.setattr(methods.inputs, "load_model", lambda o: stub_model(resolver, o))
    mask = np.zeros(size[::-1], np.int16)
    mask[2:-2, 6:-6, 6:-6] = 1
    path = write_ct(folder / "ct.nii.gz", lung_like(size), affine, mask)
    out = folder / "results"
    words = ("--input", str(path), "--results_dir", str(out), "--page_mb", "40", *words)
    assert super_resolution(evaluation_options(*words)) == 0
    return out


def cursor(browser: Page) -> tuple[np.ndarray, dict[str, float]]:
    """Millimetres and values that the page tells."""
    text = browser.run("return document.getElementById('cursor').textContent")
    place = re.match(r"x (\S+)  y (\S+)  z (\S+) mm", text)
    assert place is not None, text
    values = re.findall(r"(?:^|   )(\w[\w ]*?) (-?[\d.]+)(?: HU)?(?=   |$)", text.split("\n")[1])
    return np.array([float(one) for one in place.groups()]), {n: float(v) for n, v in values}


def value_at(path: Path, mm: np.ndarray) -> float:
    """The voxel of a file at a place."""
    array, image = read_nifti(path)
    x, y, z = np.rint(np.linalg.inv(image.affine) @ [*mm, 1])[:3].astype(int)
    return float(array[z, y, x])


def enter(browser: Page, name: str, text: str) -> None:
    """Type into a field of numbers."""
    browser.run(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event('change'))",
        name,
        text,
    )
    browser.settle()


def point_at(browser: Page, share: float) -> None:
    """Move the pointer over the first canvas, without a click."""
    browser.run(
        "const canvas = viewer.panes[0].canvas, box = canvas.getBoundingClientRect();"
        "canvas.dispatchEvent(new MouseEvent('mousemove', {bubbles: true,"
        "clientX: box.left + box.width * (0.5 - arguments[0] / 2),"
        "clientY: box.top + box.height * (0.5 + arguments[0] / 3)}))",
        share,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lps", "swapped", "mirrored"])
def test_values_under_the_cursor_are_those_of_the_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Page, name: str
) -> None:
    folder = make(tmp_path, monkeypatch, affines()[name])
    browser.open(folder / "index.html")
    seen = []
    for index in (0, 5, 11):
        browser.run(
            "const slider = document.getElementById('slice'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'))",
            index,
        )
        for share in (0.1, 0.3, 0.45):
            point_at(browser, share)
            mm, values = cursor(browser)
            assert values == {
                "input": value_at(folder / "clinical.nii.gz", mm),
                "SR": value_at(folder / "SR.nii.gz", mm),
            }
            seen.append(tuple(values.values()))
        shown = browser.run("return document.getElementById('slice-name').textContent")
        assert shown == f"{index} (0 to {SIZE[2] - 1})"
    assert len(set(seen)) == len(seen)
    assert browser.errors() == []


@pytest.mark.slow
def test_every_control_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Page) -> None:
    folder = make(tmp_path, monkeypatch, affines()["lps"], "--uncertainty", "--self_ensemble")
    browser.open(folder / "index.html")

    def picture() -> list[int]:
        """A row of grey values of the second pane."""
        return browser.run(
            "const nv = viewer.panes[1].nv, gl = nv.gl; nv.drawScene();"
            "const line = new Uint8Array(4 * gl.drawingBufferWidth);"
            "gl.readPixels(0, gl.drawingBufferHeight >> 1, gl.drawingBufferWidth, 1, gl.RGBA,"
            "gl.UNSIGNED_BYTE, line); return [...line]"
        )

    browser.run("viewer.goToSlice(6)")
    before = picture()
    assert len(set(before)) > 20  # something is drawn

    browser.run(
        "const one = document.getElementById('window'); one.selectedIndex = 1;"
        "one.dispatchEvent(new Event('change'))"
    )
    browser.settle()
    assert browser.run("return [+viewer.low.value, +viewer.high.value]") == [-160, 240]
    mediastinum = picture()
    assert mediastinum != before
    # A number that is none, or not above the other, is put back.
    for typed in ("", "500"):
        enter(browser, "low", typed)
        assert browser.run("return [+viewer.low.value, +viewer.high.value]") == [-160, 240]
    assert picture() == mediastinum
    enter(browser, "low", "-500")
    assert browser.run("return document.getElementById('window').selectedIndex") == -1
    enter(browser, "low", "-1350")
    enter(browser, "high", "150")
    assert browser.run("return document.getElementById('window').value") == "lung"
    assert picture() == before

    for overlay in ("lung mask", "difference", "uncertainty"):
        box = f"document.querySelector('[data-overlay=\"{overlay}\"]')"
        browser.run(f"{box}.click()")
        browser.settle()
        assert overlay in cursor(browser)[1]
        if overlay != "uncertainty":  # the stand-in is equally sure everywhere
            assert picture() != before
        browser.run(f"{box}.click()")
        browser.settle()
        assert picture() == before

    browser.run("document.querySelector('button[title^=\"zoom in\"]').click()")
    zoomed = browser.run("return viewer.panes.map((pane) => pane.nv.scene.pan2Dxyzmm[3])")
    assert zoomed == [1.5, 1.5]
    assert picture() != before
    browser.run("[...document.querySelectorAll('button')].at(-1).click()")
    assert picture() == before

    browser.run("viewer.panes[0].holder.dispatchEvent(new WheelEvent('wheel', {deltaY: 1}))")
    assert browser.run("return document.getElementById('slice').value") == "7"

    browser.run("document.getElementById('swipe-on').click()")
    browser.settle()
    assert browser.run("return viewer.panes.map((pane) => pane.choice.value)") == ["cubic", "SR"]
    browser.run("viewer.swipe.value = 30; viewer.swipe.dispatchEvent(new Event('input'))")
    clip = browser.run("return getComputedStyle(viewer.panes[1].holder).clipPath")
    assert clip == "inset(0px 0px 0px 30%)"
    assert browser.errors() == []


def test_large_case_is_shown_as_overview_and_detail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Page
) -> None:
    monkeypatch.setattr("methods.pages.result_page.BYTES_PER_MB", 1e4)
    folder = make(tmp_path, monkeypatch, affines()["lps"], "--page_mb", "10")
    browser.open(folder / "index.html")
    names = browser.run("return [...document.getElementById('view').options].map((o) => o.text)")
    assert names == ["overview", "detail"]
    about = browser.run("return document.getElementById('about').textContent")
    assert "averaged to one" in about
    browser.run(
        "const one = document.getElementById('view'); one.selectedIndex = 1;"
        "one.dispatchEvent(new Event('change'))"
    )
    browser.settle()
    assert "All pixels of" in browser.run("return document.getElementById('about').textContent")
    point_at(browser, UPPER_LEFT)
    mm, values = cursor(browser)
    assert values["SR"] == value_at(folder / "SR.nii.gz", mm)
    assert browser.errors() == []


@pytest.mark.slow
def test_detail_may_have_fewer_slices_than_the_overview(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Page
) -> None:
    monkeypatch.setattr("methods.pages.result_page.BYTES_PER_MB", 1e4)
    folder = make(tmp_path, monkeypatch, affines()["lps"], "--page_mb", "20", slices=48)
    browser.open(folder / "index.html")
    counts = browser.run(
        "return spec.views.map((view) => view.slices.length)".replace(
            "spec", "JSON.parse(document.getElementById('viewer-spec').textContent)"
        )
    )
    assert counts[0] > counts[1]
    browser.run("viewer.goToSlice(1000)")
    assert browser.run("return viewer.slice") == counts[0] - 1
    browser.run(
        "viewer.viewChoice.selectedIndex = 1; viewer.viewChoice.dispatchEvent(new Event('change'))"
    )
    browser.settle()
    assert browser.run("return viewer.slider.max") == str(counts[1] - 1)
    start = browser.run("return viewer.view.start")
    assert browser.run("return [viewer.slice, +viewer.slider.value]") == [start, start]
    index = browser.run("return viewer.view.slices[viewer.slice].number")
    shown = browser.run("return document.getElementById('slice-name').textContent")
    assert shown == f"{index} (0 to 47)"
    point_at(browser, UPPER_LEFT)
    mm, values = cursor(browser)
    assert values["SR"] == value_at(folder / "SR.nii.gz", mm)
    assert browser.errors() == []


def test_page_needs_no_network_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Page
) -> None:
    folder = make(tmp_path, monkeypatch, affines()["lps"])
    alone = tmp_path / "elsewhere" / "page.html"
    alone.parent.mkdir()
    (folder / "index.html").replace(alone)
    text = alone.read_text(encoding="utf-8")
    head = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!data:)', head)
    shutil.rmtree(folder)
    browser.open(alone)
    assert browser.errors() == []


def test_several_cases_have_an_overview(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Page
) -> None:
    resolver = IdentityResolver(SCALE)
    monkeypatch.setattr(methods.inputs, "load_model", lambda o: stub_model(resolver, o))
    for name in ("left", "right"):
        write_ct(tmp_path / "input" / f"{name}.nii.gz", lung_like((24, 20, 2)), affines()["lps"])
    out = tmp_path / "results"
    words = ["--input", str(tmp_path / "input"), "--results_dir", str(out), "--page_mb", "5"]
    # Two jobs, one case each: the second finds the first one's.
    for part in ("0", "1"):
        options = evaluation_options(*words, "--num_parts", "2", "--part_id", part)
        assert super_resolution(options) == 0
        text = (out / "index.html").read_text(encoding="utf-8")
        assert ("not finished" in text) == (part == "0")
    browser.open(out / "index.html")
    links = browser.run("return [...document.querySelectorAll('td a')].map((one) => one.href)")
    assert links == [(out / name / "index.html").as_uri() for name in ("left", "right")]
    # They are loaded when they come into view, so perhaps after the page.
    browser.wait("return [...document.images].every((one) => one.naturalWidth > 100)")
    browser.open(out / "right" / "index.html")
    assert browser.errors() == []


def test_no_page_is_written_where_none_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, monkeypatch, affines()["lps"], "--page_mb", "0")
    assert not (folder / "index.html").exists()


def test_a_page_that_cannot_be_made_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("util.pages.viewer_page.PACKAGE", "no_such_package_here")
    niivue_module.cache_clear()
    _packed_niivue.cache_clear()
    folder = make(tmp_path, monkeypatch, affines()["lps"])
    assert "no page: the package no_such_package_here is not installed" in capsys.readouterr().err
    assert (folder / "SR.nii.gz").exists()
    assert not (folder / "index.html").exists()
