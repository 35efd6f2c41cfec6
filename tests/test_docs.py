from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_placeholder_is_left(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"\b[A-Z]+_(?:TABLE|LINE)\b|\bTODO\b|\bTBD\b", text)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_and_functions_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = []
    for name, function in re.findall(r"`(\w+/[\w/]+\.(?:py|js|css|sh))(?:: ([\w.]+))?`", text):
        path = ROOT / name
        defined = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not defined or not re.search(rf"\b{function.split('.')[-1]}\b", defined):
            missing.append(f"{name}: {function}")
    # Of a recipe: a test or a format that does not exist yet.
    assert [name for name in missing if "NAME" not in name] == []
