"""Benchmarks keep what they print for programs, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.printed_tables import recorded, tables_in

PRINTED = """
AMD EPYC, 2 threads

## Whole slices

| path | s | ratio |
|---|---|---|
| published layers | 9.21 | 1 |
| ours, bf16 | 1.5e0 | 6.1 times |

took 12 s
| quantity | value |
|:--|--:|
| peak | -0.25 |
"""


def test_tables_are_found_with_the_line_above() -> None:
    assert tables_in(PRINTED) == [
        {
            "title": "Whole slices",
            "columns": ["path", "s", "ratio"],
            "rows": [["published layers", 9.21, 1.0], ["ours, bf16", 1.5, "6.1 times"]],
        },
        {"title": "took 12 s", "columns": ["quantity", "value"], "rows": [["peak", -0.25]]},
    ]
    assert tables_in("no table\n") == []


def test_a_benchmark_leaves_a_file_and_prints_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recorded(lambda words: print(PRINTED), "inference", tmp_path)
    assert run(["--repeats", "1"]) is None
    out, err = capsys.readouterr()
    assert out == PRINTED + "\n"
    path = tmp_path / "inference.json"
    assert err == f"wrote {path}\n"
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert facts["tables"] == tables_in(PRINTED)
    assert facts["words"] == ["--repeats", "1"]
    assert facts["torch"] == torch.__version__
    assert facts["processor"]
    assert facts["seconds"] >= 0


def test_without_a_table_there_is_no_file(tmp_path: Path) -> None:
    assert recorded(lambda words: 3, "inference", tmp_path)([]) == 3
    assert list(tmp_path.iterdir()) == []
