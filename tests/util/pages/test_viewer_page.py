"""The viewer of a page by itself, on volumes of a few voxels: gestures, loading, failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import Page
from selenium.webdriver import ActionChains

from methods.pages.excerpt import nifti_gz
from util.pages.page_parts import new_page, text_of
from util.pages.viewer_page import PageView, PageVolume, Viewer, viewer_nodes, viewer_style

SLICES = 5
START = 3
COARSE = np.diag([2.0, 2.0, 3.0, 1.0])
FINE = np.diag([0.5, 0.5, 3.0, 1.0])
FINE[:2, 3] = -0.75  # the corners of both lie at -1 mm; the fine one ends 1 mm before the other


def volume(name: str, pixels: int, affine: np.ndarray, scale: float = 1.0) -> PageVolume:
    """A square volume whose values grow along each axis."""
    z, y, x = np.mgrid[:SLICES, :pixels, :pixels]
    values = ((x + 50 * y + 7 * z) * scale).astype(np.int16 if scale == 1 else np.float32)
    return PageVolume(name, nifti_gz(values, affine), "HU" if scale == 1 else "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a coarse and a fine volume in two panes, and one of tiny values."""
    volumes = [
        volume("input", 8, COARSE),
        volume("SR", 30, FINE),
        volume("thousandths", 8, COARSE, 1.25e-5),
    ]
    centres = [(index, [7.0, 7.0, 3.0 * index]) for index in range(SLICES)]
    view = PageView("whole volume", "all", volumes, [], centres, START)
    windows = [("lung", -1350.0, 150.0), ("model", -1000.0, 500.0)]
    viewer = Viewer([view], windows, ("input", "SR"), ("input", "SR"), "axial", SLICES)
    page = new_page("viewer", viewer_style())
    for node in viewer_nodes(viewer):
        page.body.add(node)
    path = tmp_path_factory.mktemp("viewer") / "index.html"
    path.write_text(text_of(page), encoding="utf-8")
    return path


def choose(browser: Page, pane: int, name: str) -> None:
    """Choose what a pane shows."""
    browser.run(
        "const { choice } = viewer.panes[arguments[0]]; choice.value = arguments[1];"
        "choice.dispatchEvent(new Event('change'))",
        pane,
        name,
    )
    browser.settle()


def crosshairs(browser: Page) -> list[list[float]]:
    """Millimetres of each pane's crosshair."""
    return browser.run("return viewer.panes.map((pane) => viewer.crosshair(pane))")


def windows(browser: Page) -> list[list[float]]:
    """Values that are black and white in each pane."""
    return browser.run(
        "return viewer.panes.map(({ nv }) => [nv.volumes[0].cal_min, nv.volumes[0].cal_max])"
    )


def told(browser: Page) -> str:
    """What stands below the pictures."""
    return str(browser.run("return document.getElementById('cursor').textContent"))


@pytest.mark.slow
def test_what_is_asked_for_while_it_loads_comes_after(place: Path, browser: Page) -> None:
    browser.open(place)
    # A second viewer, which is asked when it has panes and no volumes.
    browser.driver.execute_async_script(
        "const done = arguments[0], second = new viewer.constructor(viewer.niivue);"
        "const show = second.showView;"
        "second.showView = (index) => { window.inert = [second.controls.inert, second.area.inert];"
        "  second.setWindow({ low: -500, high: 100 }); return show.call(second, index); };"
        "window.viewer = second; second.start().then(done, done)"
    )
    browser.settle()
    assert windows(browser) == [[-500, 100]] * 2
    assert browser.run("return window.inert") == [True, True]
    assert browser.run("return [viewer.controls.inert, viewer.area.inert]") == [False, False]
    assert browser.run("return document.documentElement.dataset.viewer") == "ready"
    assert browser.errors() == []


@pytest.mark.slow
def test_gestures_of_niivue_leave_the_panes_alike(place: Path, browser: Page) -> None:
    browser.open(place)
    canvas = browser.run("return viewer.panes[0].canvas")
    mouse = ActionChains(browser.driver)
    mouse.move_to_element_with_offset(canvas, 60, 40).double_click().pause(0.2).perform()
    browser.settle()
    assert windows(browser) == [[-1350, 150]] * 2
    ActionChains(browser.driver).send_keys("v").pause(0.2).perform()
    planes = browser.run("return viewer.panes.map(({ nv }) => nv.opts.sliceType)")
    assert planes[0] == planes[1]
    first, second = crosshairs(browser)
    assert first != pytest.approx([7, 7, 3 * START])
    assert first == pytest.approx(second, abs=1e-3)
    assert browser.errors() == []


def test_crosshair_keeps_its_place_where_volumes_differ_in_extent(
    place: Path, browser: Page
) -> None:
    browser.open(place)
    canvas = browser.run("return viewer.panes[0].canvas")
    ActionChains(browser.driver).move_to_element_with_offset(canvas, 60, 40).click().perform()
    clicked = crosshairs(browser)[0]
    choose(browser, 0, "SR")
    for crosshair in crosshairs(browser):
        assert crosshair == pytest.approx(clicked, abs=1e-3)


def test_values_are_told_in_full_and_none_outside(place: Path, browser: Page) -> None:
    browser.open(place)
    choose(browser, 1, "thousandths")
    browser.run("viewer.tell([6.1, 4.1, 3])")
    assert told(browser).endswith("input 110 HU   SR 521 HU   thousandths 0.001375")
    browser.run("viewer.tell([14.8, 4, 3])")
    assert "input 114 HU   SR outside" in told(browser)
    assert "NaN" not in told(browser)


def test_slices_can_be_turned_while_a_volume_loads(place: Path, browser: Page) -> None:
    browser.open(place)
    browser.run(
        "const load = viewer.image;"
        "viewer.image = async (volume) => { viewer.goToSlice(1); viewer.image = load;"
        "  window.seen = viewer.mm; return load.call(viewer, volume); }"
    )
    choose(browser, 0, "thousandths")
    assert browser.run("return window.seen") == pytest.approx([7, 7, 3])
    assert [round(mm[2], 3) for mm in crosshairs(browser)] == [3, 3]
    assert browser.errors() == []


def test_a_volume_that_cannot_be_opened_is_not_named_as_shown(place: Path, browser: Page) -> None:
    browser.open(place)
    browser.run("document.getElementById('volume-2').textContent = 'no base64 !'")
    for _ in range(2):
        choose(browser, 0, "thousandths")
        assert browser.run("return viewer.panes[0].choice.value") == "input"
    messages = browser.run(
        "return [...document.querySelectorAll('.message')].map((one) => one.textContent)"
    )
    assert len(messages) == 1
    assert "The viewer failed" in messages[0]
    assert browser.errors()  # it is told there too
    choose(browser, 0, "SR")
    assert windows(browser) == [[-1350, 150]] * 2
