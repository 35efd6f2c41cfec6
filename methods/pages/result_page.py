"""The page of one result, index.html, and the one over several: a row each, linked to its page.

To look at in a browser, from disk, without a network.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from dominate import tags

from util.errors import UserError
from util.file_names import one_line
from util.files import write_text
from util.pages.page_parts import address, facts_table, inline_png, new_page, table, text_of
from util.pages.viewer_page import Viewer, viewer_nodes, viewer_style
from util.privacy import cleared

PAGE = "index.html"
METHOD_MARK = re.compile(r'<meta content="(\w+)" name="method">')
HEAD_BYTES = 1024  # the mark stands within them
BYTES_PER_MB = 1e6

NOTE = (
    "Left button: crosshair. Right button: move. Wheel: slices, with Ctrl zoom. Values are those "
    "of the volumes on this page. Detail below the input's resolution is inferred, not measured."
)

# Entries of a run record for the page, in this order, under these names.
FACTS = {
    "method": "method",
    "input": "input",
    "lung_mask": "lung mask",
    "checkpoint": "weights",
    "weights": "digest of the weights",
    "checkpoint_step": "trained steps",
    "scale": "enlargement in plane",
    "drawn": "drawn by chance",
    "window": "intensity window",
    "norm_scope": "norm statistics",
    "device_name": "computed on",
    "backend": "with",
    "precision": "in",
    "seconds": "seconds",
    "seconds_per_slice": "seconds a slice",
    "duration_seconds": "seconds since the start",
    "started": "started",
    "git_commit": "code",
}

STYLE = "td img { width: 30em; } td { vertical-align: top; }"


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it: tags of dominate."""

    title: str
    content: Sequence[Any]


def make_page(
    options: Namespace,
    folder: Path,
    record: Mapping[str, Any],
    viewer: Callable[[float], Viewer],
    sections: Sequence[Section],
    preview: Path,
) -> None:
    """Write a case's page, unless --page_mb 0 wants none; see `may_fail`.

    Args:
        options: method, page_mb and debug are used.
        folder: for the page, where the results are.
        record: the run record.
        viewer: reads the volumes, given the bytes that they may take.
        sections: measures and plots.
        preview: the case's picture.
    """
    if options.page_mb <= 0:
        return
    path = folder / PAGE
    with may_fail("page", options.debug):
        shown = viewer(options.page_mb * BYTES_PER_MB)
        others = keep_other_page(path, options.method)
        text = case_page(
            f"{options.method}: {folder_title(record)}",
            options.method,
            record,
            shown,
            sections,
            preview,
            others,
        )
        write_text(path, text)
        print(f"open {path} in a browser to look at it")


@contextmanager
def may_fail(what: str, debug: bool = False) -> Iterator[None]:
    """Turn any error of the block into a line on standard error.

    A page or a picture is made when the result is complete: whatever goes wrong with it costs no
    result, and does not make the run a failed one.

    Args:
        what: is made: "page", "picture".
        debug: show the error itself.
    """
    try:
        yield
    except Exception as error:
        if debug:
            raise
        known = isinstance(error, UserError | OSError)
        reason = str(error) if known else f"{error!r}, --debug shows where"
        print(one_line(f"no {what}: {reason} (the results are complete)"), file=sys.stderr)


def folder_title(record: Mapping[str, Any]) -> str:
    """The input's name for a heading."""
    return Path(str(record.get("input", ""))).name


def case_page(
    title: str,
    method: str,
    record: Mapping[str, Any],
    viewer: Viewer,
    sections: Sequence[Section],
    preview: Path,
    others: Mapping[str, str],
) -> str:
    """The page's HTML; see `make_page`."""
    page = new_page(title, viewer_style(), method=method)
    body = page.body
    for node in page_links(others):
        body.add(node)
    for node in viewer_nodes(viewer):
        body.add(node)
    body.add(tags.p(NOTE, cls="note"))
    for section in sections:
        body.add(tags.h2(section.title))
        for node in section.content:
            body.add(node)
    if preview.is_file():
        body.add(tags.h2("Picture"))
        body.add(inline_png(preview.read_bytes(), "input, cubic interpolation and result"))
    body.add(tags.h2("What ran"))
    body.add(facts_table(chosen_facts(record)))
    details = tags.details(tags.summary("the whole record (run.json)"))
    details.add(tags.pre(json.dumps(record, indent=2, default=str)))
    body.add(details)
    return text_of(page)


def page_links(others: Mapping[str, str]) -> list[tags.p]:
    """A line of links to other pages, given their files by name; none where there are none."""
    if not others:
        return []
    line = tags.p("other pages:")
    for name, place in others.items():
        line.add(" ", tags.a(name, href=address(place)))
    return [line]


def chosen_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """The telling part of a run record, in words."""
    facts = {}
    for name, title in FACTS.items():
        value = record.get(name)
        if value is None:
            continue
        if name == "window":
            value = f"{value['low']:g} to {value['high']:g}"
        facts[title] = str(value)
    return facts


def keep_other_page(path: Path, method: str) -> dict[str, str]:
    """Rename the page of another method's earlier run after its method; lose no stranger's.

    A method's page is index.html while it ran last in the folder, METHOD.html afterwards, never
    both.

    Returns:
        File names of the pages of other methods in the folder, by method.
    """
    earlier = path.with_name(f"{method}.html")
    if earlier.is_file() and method_of(earlier) == method:
        earlier.unlink()
    if path.is_file():
        before = method_of(path)
        if before is None:
            path.replace(_free_name(path))
        elif before != method:
            path.replace(path.with_name(f"{before}.html"))
    others = {method_of(one): one.name for one in sorted(path.parent.glob("*.html"))}
    return {name: file for name, file in others.items() if name not in (None, method)}


def _free_name(path: Path) -> Path:
    """other.html, other-2.html and so on: the first that is free."""
    names = chain(["other.html"], (f"other-{number}.html" for number in count(2)))
    return next(place for place in map(path.with_name, names) if not place.exists())


def method_of(page: Path) -> str | None:
    """The method whose page a file is; None for a file that is none."""
    with page.open(encoding="utf-8", errors="replace") as stream:
        match = METHOD_MARK.search(stream.read(HEAD_BYTES))
    return match.group(1) if match else None


def write_overview(options: Namespace, folders: Sequence[Path], prefix: str = "") -> None:
    """Write the index of all cases that are finished so far, where there are several.

    Jobs that share a cohort each write it; the last one finds all cases.

    Args:
        options: results_dir, method, page_mb and debug are used.
        folders: of all cases, inside the results folder.
        prefix: of run.json and preview.png.
    """
    if options.page_mb <= 0 or len(folders) < 2:
        return
    root = Path(options.results_dir)
    with may_fail("page", options.debug):
        others = keep_other_page(root / PAGE, options.method)
        write_text(
            root / PAGE, overview(options.method, root, folders, prefix, others), shared=True
        )
        print(f"open {root / PAGE} in a browser to look at all cases")


def overview(
    method: str, root: Path, folders: Sequence[Path], prefix: str, others: Mapping[str, str]
) -> str:
    """The page's HTML; see `write_overview`. A case links to its page where it has one."""
    rows = []
    record: Mapping[str, Any] = {}
    for folder in folders:
        try:
            record = json.loads((folder / f"{prefix}run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            rows.append([cleared(folder.name), "not finished", ""])
            continue
        place = address(folder.relative_to(root).as_posix())
        linked = (folder / PAGE).is_file()
        title = cleared(folder.name)
        name = tags.a(title, href=f"{place}/{PAGE}") if linked else title
        picture = tags.img(
            src=f"{place}/{prefix}preview.png", alt=f"picture of {title}", loading="lazy"
        )
        rows.append([name, _scores(record), picture])
    page = new_page(f"{method}: {len(folders)} cases", STYLE, method=method)
    for node in page_links(others):
        page.body.add(node)
    page.body.add(table(["case", "result", "picture"], rows))
    page.body.add(tags.h2("What ran"))
    common = {name: value for name, value in record.items() if name not in ("input", "seconds")}
    page.body.add(facts_table(chosen_facts(common)))
    return text_of(page)


def _scores(record: Mapping[str, Any]) -> str:
    """The case's scores in a few words; its time where it has none."""
    if record.get("in_words"):
        return str(record["in_words"])
    scores = record.get("scores")
    if scores:
        return "; ".join(
            f"{name} {one['psnr']} dB, {one['ssim']}"
            if isinstance(one["psnr"], str)
            else f"{name} {one['psnr']:.2f} dB, {one['ssim']:.3f}"
            for name, one in scores.items()
        )
    return f"{record.get('seconds', 0)} s"
