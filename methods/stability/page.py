"""The page of stabilitytest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dominate import tags

from methods.pages.result_page import chosen_facts, page_links
from util.pages.page_parts import facts_table, inline_png, new_page, table, text_of

TITLES = {
    "consistency_hu": "consistency, HU",
    "flip_hu": "flip, HU",
    "noise_gain": "noise gain",
    "lattice_db": "lattice, dB",
    "lattice_hu": "lattice, HU",
}
NOTE = (
    "Consistency: the result's area average from its input. Flip: what mirroring the scan changes. "
    "Noise gain: how much of 15 HU of added noise arrives. Lattice: what repeats from input pixel "
    "to input pixel. They tell what is invented, not what is missing."
)
Row = dict[str, Any]
"""Of a slice: "slice", the figures of TITLES, "word"."""


def page_of(
    method: str,
    record: Mapping[str, Any],
    rows: Sequence[Row],
    pictures: Sequence[bytes],
    others: Mapping[str, str],
) -> str:
    """The page's HTML: words, curves, the worst slice, all slices in a table.

    Args:
        method: of medicaltest.py.
        record: of the run.
        rows: of all slices.
        pictures: curves, and the worst slice, as PNG.
        others: pages of other methods, files by name.
    """
    page = new_page(f"{method}: {Path(record['input']).name}", method=method)
    body = page.body
    for node in page_links(others):
        body.add(node)
    body.add(tags.p(record["in_words"]))
    body.add(tags.p(NOTE, cls="note"))
    body.add(inline_png(pictures[0], "the figures of each slice"))
    body.add(tags.h2("The worst slice"))
    body.add(inline_png(pictures[1], "input, result and what changes"))
    body.add(tags.h2("Over all slices"))
    names = ("mean", "median", "lowest", "highest")
    figures = record["figures"]
    body.add(
        table(
            ["", *names],
            [
                [title, *(f"{figures[name][n]:.2f}" for n in names)]
                for name, title in TITLES.items()
            ],
        )
    )
    body.add(tags.h2("What ran"))
    body.add(facts_table(chosen_facts(record)))
    details = tags.details(tags.summary("every slice"))
    cells = [
        [str(row["slice"]), *(f"{row[name]:.2f}" for name in TITLES), row["word"]] for row in rows
    ]
    details.add(table(["slice", *TITLES.values(), "word"], cells))
    body.add(details)
    return text_of(page)
