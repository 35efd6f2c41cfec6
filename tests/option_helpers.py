"""Run an option parser as a user does, and find where the code reads an option."""

from __future__ import annotations

import ast
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import pytest

from options import TestOptions, TrainOptions

ROOT = Path(__file__).resolve().parents[1]


def train_options(*words: str, gpus: int = 0) -> Namespace:
    return TrainOptions().parse(list(words), lambda: gpus)[0]


def evaluation_options(*words: str) -> Namespace:
    """Options of a test; without the page, which takes longer than a tiny run, unless asked for."""
    page = [] if {"--page_mb", "--export", "--compare"}.intersection(words) else ["--page_mb", "0"]
    return TestOptions().parse([*page, *words])[0]


def option_names(kind: type[TrainOptions] | type[TestOptions]) -> set[str]:
    """Every option of a script but those that leave at once."""
    return {action.dest for action in kind().build()._actions} - {"help", "list"}


def refusal(capsys: pytest.CaptureFixture[str], program: str, *words: str) -> str:
    """The one line on standard error with which a command line is refused (exit code 2)."""
    with pytest.raises(SystemExit) as leaving:
        (train_options if program == "train.py" else evaluation_options)(*words)
    assert leaving.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"(see {program} --help)\n"), err
    assert err.count("\n") == 1, f"more than one line: {err}"
    return err


def options_read_in(paths: Iterable[Path]) -> set[str]:
    """Names NAME that occur as `options.NAME`, or `o.NAME` where `o = self.options`, in code."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                holder = node.value
                name = holder.id if isinstance(holder, ast.Name) else getattr(holder, "attr", "")
                if name in ("options", "o"):
                    found.add(node.attr)
    return found


def sources(*places: str) -> list[Path]:
    """Python files of folders and single files of the project."""
    return [
        path
        for place in places
        for path in (
            [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
        )
        if path.suffix == ".py"
    ]
