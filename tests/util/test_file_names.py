from __future__ import annotations

import os

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from util.file_names import LONGEST_NAME, drawn, one_line, presentable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"chest 01.nii.gz", "chest 01.nii.gz"),
        ("Lunge_größer 肺".encode(), "Lunge_größer 肺"),
        (b"caf\xe9", r"caf\xe9"),
        (b"two\nlines\r\t", r"two\nlines\r\t"),
        (b"bell\x07", r"bell\x07"),
        ("\u202eright to left".encode(), r"\u202eright to left"),
        (b"$x^2$_{a}", "$x^2$_{a}"),
        (b"", ""),
    ],
)
def test_a_name_is_one_line_of_text(name: bytes, shown: str) -> None:
    assert presentable(os.fsdecode(name)) == shown
    shown.encode("utf-8")


def test_a_long_name_keeps_its_start_and_its_end() -> None:
    shown = presentable("a" * 200 + "b" * 200)
    assert len(shown) == LONGEST_NAME
    assert (shown[:3], shown[-3:]) == ("aaa", "bbb")
    assert presentable("abcdefghij", 8) == "abc...ij"
    assert presentable("a" * LONGEST_NAME) == "a" * LONGEST_NAME


def test_only_line_breaks_of_a_message_are_escaped() -> None:
    assert one_line("no volume in a\nb\u2028c: give 肺 \udce9\t!") == (
        "no volume in a\\nb\\u2028c: give 肺 \udce9\t!"
    )


@pytest.mark.parametrize("name", ["$x^2$", "$\\frac{", "a$b", "_hidden", "$", "caf\udce9", "\n"])
def test_every_name_can_be_drawn_as_it_is(name: str) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label=drawn(name))
    axes.set_title(drawn(name))
    (entry,) = axes.legend().get_texts()  # a name that begins with _ would be left out
    FigureCanvasAgg(figure).draw()
    text, is_formula = axes.title._preprocess_math(axes.title.get_text())  # type: ignore[attr-defined]
    assert not is_formula
    assert text.lstrip("\u200b") == presentable(name)
    assert entry.get_text() == axes.title.get_text()
