"""Parts that every HTML page of the project is made of: head, tables, pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import dominate
from dominate import tags
from dominate.util import raw
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE = """
body { font-family: sans-serif; margin: 1.5em; background: #fff; color: #222; }
h2 { margin: 1.2em 0 0.4em; font-size: 1.2em; }
table { border-collapse: collapse; }
td, th { padding: 0.2em 0.7em; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
table.facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
img { max-width: 100%; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85em; }
.note { color: #555; max-width: 60em; }
"""


def new_page(title: str, style: str = "", **marks: str) -> Any:
    """A document with the project's head and its title as heading.

    Args:
        title: of the window and the page.
        style: further CSS.
        marks: content of meta tags by name, for programs that read the page.
    """
    page = dominate.document(title=title)
    page.set_attribute("lang", "en")
    page.head.add(tags.meta(charset="utf-8"))
    for name, content in marks.items():
        page.head.add(tags.meta(name=name, content=content))
    page.head.add(tags.meta(name="viewport", content="width=device-width"))
    page.head.add(tags.style(raw(STYLE + style)))
    page.body.add(tags.h1(title))
    return page


def text_of(page: Any) -> str:
    """The document as the content of its file.

    File names may hold bytes that are no text (as lone surrogates); the page shows `?` for them.
    """
    return str(page.render(pretty=False)).encode("utf-8", "replace").decode("utf-8") + "\n"


def address(place: str) -> str:
    """A relative path as the target of a link, whatever characters or bytes it is made of."""
    return quote(place, errors="surrogateescape")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> tags.table:
    """A table; the cells are texts or tags."""
    made = tags.table(tags.tr(*[tags.th(cell) for cell in head]))
    for row in rows:
        made.add(tags.tr(*[tags.td(cell) for cell in row]))
    return made


def facts_table(facts: Mapping[str, Any]) -> tags.table:
    """Names and values, one a row."""
    made = tags.table(cls="facts")
    for name, value in facts.items():
        made.add(tags.tr(tags.th(name), tags.td(value)))
    return made


def inline_png(content: bytes, text: str) -> tags.img:
    """A picture that the page carries; `text` says what it shows."""
    source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return tags.img(src=source, alt=text)


def figure_png(figure: Figure, dots_per_inch: int = 100) -> bytes:
    """A Matplotlib figure as a PNG."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=dots_per_inch)
    return stream.getvalue()
