"""The page over several cases, and what all pages share: links, names, and failing harmlessly."""

from __future__ import annotations

import json
import os
import re
from argparse import Namespace
from pathlib import Path

import pytest

from methods.pages.result_page import (
    PAGE,
    keep_other_page,
    may_fail,
    method_of,
    write_overview,
)
from util.errors import UserError


def marked(method: str) -> str:
    return f'<head><meta content="{method}" name="method"></head>'


def options(folder: Path, *, debug: bool = False) -> Namespace:
    return Namespace(results_dir=str(folder), method="smallpatchtest", page_mb=5, debug=debug)


def finished(folder: Path, name: str) -> Path:
    """A case that ran, without a page."""
    case = folder / name
    case.mkdir(parents=True)
    (case / "run.json").write_text(json.dumps({"seconds": 3}))
    return case


def fail(error: Exception) -> None:
    raise error


def links(folder: Path) -> list[str]:
    return re.findall(r'href="([^"]*)"', (folder / PAGE).read_text(encoding="utf-8"))


def test_a_case_is_linked_where_it_has_a_page(tmp_path: Path) -> None:
    cases = [finished(tmp_path, name) for name in ("first", "second")]
    (cases[1] / PAGE).write_text("page")
    write_overview(options(tmp_path), cases)
    assert links(tmp_path) == ["second/index.html"]


def test_links_survive_any_name(tmp_path: Path) -> None:
    name = "50 % #3? " + os.fsdecode("\N{GREEK SMALL LETTER MU}".encode())
    cases = [finished(tmp_path, one) for one in (name, "plain")]
    for case in cases:
        (case / PAGE).write_text("page")
    write_overview(options(tmp_path), cases)
    assert links(tmp_path) == ["50%20%25%20%233%3F%20%CE%BC/index.html", "plain/index.html"]


def test_a_name_that_is_no_text_does_not_cost_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [finished(tmp_path, one) for one in (os.fsdecode(b"m\xfcller"), "plain")]
    (cases[0] / PAGE).write_text("page")
    write_overview(options(tmp_path), cases)
    assert capsys.readouterr().err == ""
    assert links(tmp_path) == ["m%FCller/index.html"]
    assert "m?ller" in (tmp_path / PAGE).read_text(encoding="utf-8")


def test_the_page_of_another_method_is_linked(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text(marked("phantomtest"))
    write_overview(options(tmp_path), [finished(tmp_path, one) for one in ("first", "second")])
    assert links(tmp_path) == ["phantomtest.html"]
    assert method_of(tmp_path / "phantomtest.html") == "phantomtest"


def test_the_page_of_another_method_is_kept(tmp_path: Path) -> None:
    page = tmp_path / PAGE
    page.write_text(marked("smallpatchtest"))
    (tmp_path / "notes.html").write_text("mine")
    assert keep_other_page(page, "smallpatchtest") == {}
    assert page.exists()
    assert keep_other_page(page, "phantomtest") == {"smallpatchtest": "smallpatchtest.html"}
    assert not page.exists()
    assert method_of(tmp_path / "smallpatchtest.html") == "smallpatchtest"
    assert method_of(tmp_path / "notes.html") is None


def test_the_page_of_a_stranger_is_never_lost(tmp_path: Path) -> None:
    page = tmp_path / PAGE
    for text in ("made by hand", "another", "a third"):
        page.write_text(text)
        keep_other_page(page, "phantomtest")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {
        "other.html": "made by hand", "other-2.html": "another", "other-3.html": "a third",
    }  # fmt: skip


def test_an_outdated_page_of_the_same_method_goes(tmp_path: Path) -> None:
    (tmp_path / "phantomtest.html").write_text(marked("phantomtest"))
    (tmp_path / "smallpatchtest.html").write_text("made by hand")
    assert keep_other_page(tmp_path / PAGE, "phantomtest") == {}
    assert not (tmp_path / "phantomtest.html").exists()
    keep_other_page(tmp_path / PAGE, "smallpatchtest")
    assert (tmp_path / "smallpatchtest.html").exists()  # a stranger's, whatever its name


@pytest.mark.parametrize("error", [ValueError("no window"), UserError("no window"), MemoryError()])
def test_a_page_that_fails_costs_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    with may_fail("page"):
        fail(error)
    err = capsys.readouterr().err
    assert err.startswith("no page: ")
    assert err.endswith(" (the results are complete)\n")
    assert err.count("\n") == 1
    assert ("--debug" in err) == (not isinstance(error, UserError))


def test_debug_shows_what_went_wrong_with_a_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no window"), may_fail("page", debug=True):
        raise ValueError("no window")


def test_ctrl_c_is_not_taken_for_a_failing_page(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), may_fail("page"):
        raise KeyboardInterrupt
