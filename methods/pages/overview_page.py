"""The page over several cases: one row each, with its picture and a link to its own page."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dominate import tags

from methods.pages.result_page import PAGE, chosen_facts, keep_other_page, page_links, page_may_fail
from util.files import write_text
from util.pages.page_parts import address, facts_table, new_page, table, text_of

STYLE = "td img { width: 30em; } td { vertical-align: top; }"


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
    with page_may_fail(options):
        others = keep_other_page(root / PAGE, options.method)
        write_text(root / PAGE, overview(options.method, root, folders, prefix, others))
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
            rows.append([folder.name, "not finished", ""])
            continue
        place = address(folder.relative_to(root).as_posix())
        linked = (folder / PAGE).is_file()
        name = tags.a(folder.name, href=f"{place}/{PAGE}") if linked else folder.name
        picture = tags.img(
            src=f"{place}/{prefix}preview.png", alt=f"picture of {folder.name}", loading="lazy"
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
    scores = record.get("scores")
    if scores:
        return "; ".join(
            f"{name} {one['psnr']} dB, {one['ssim']}"
            if isinstance(one["psnr"], str)
            else f"{name} {one['psnr']:.2f} dB, {one['ssim']:.3f}"
            for name, one in scores.items()
        )
    return f"{record.get('seconds', 0)} s"
