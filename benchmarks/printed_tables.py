"""What a benchmark prints, kept for programs as well: results/benchmarks/NAME.json."""

from __future__ import annotations

import io
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import torch

from util.errors import run_program
from util.files import write_json
from util.run_record import PROJECT_FOLDER, device_name, git_commit

FOLDER = Path("results") / "benchmarks"
Main = Callable[[list[str]], int | None]


class Both(io.TextIOBase):
    """Text that goes to two streams."""

    def __init__(self, first: Any, second: io.StringIO) -> None:
        self._streams = first, second

    def write(self, text: str, /) -> int:
        """Write text; returns its length."""
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Bring it to where it is read."""
        for stream in self._streams:
            stream.flush()


def run_benchmark(main: Main) -> NoReturn:
    """Be the program that `__main__` is, whose tables are kept under its name."""
    run_program(recorded(main, Path(sys.argv[0]).stem, FOLDER))


def recorded(main: Main, name: str, folder: Path) -> Main:
    """`main`, which leaves its tables with machine, versions and words in `folder`/`name`.json."""

    def run(words: list[str]) -> int | None:
        said = io.StringIO()
        started = time.monotonic()
        with redirect_stdout(Both(sys.stdout, said)):
            code = main(words)
        if tables := tables_in(said.getvalue()):
            facts = {"benchmark": name, "words": words, **machine_facts(), "tables": tables}
            facts["seconds"] = round(time.monotonic() - started, 1)
            write_json(folder / f"{name}.json", facts)
            print(f"wrote {folder / f'{name}.json'}", file=sys.stderr)
        return code

    return run


def machine_facts() -> dict[str, Any]:
    """Processor and card, what they compute, versions and commit."""
    cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": device_name("cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cards": [torch.cuda.get_device_name(card) for card in cards],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": git_commit(PROJECT_FOLDER),
    }


def tables_in(text: str) -> list[dict[str, Any]]:
    """The Markdown tables of a text: the line above each, its columns, and its rows; a cell that is
    a number is one."""
    tables: list[dict[str, Any]] = []
    title = ""
    header: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            title, header = line.strip("# ") or title, None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if header is None:
            header = cells
            tables.append({"title": title, "columns": header, "rows": []})
        elif not set(line) <= set("|-: "):  # the line between header and rows
            tables[-1]["rows"].append([number(cell) for cell in cells])
    return tables


def number(cell: str) -> float | str:
    """A cell's number, or its text."""
    try:
        return float(cell)
    except ValueError:
        return cell
