"""Where the tests of `NiftiSliceWriter` write, and what should be there in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from writer_helpers import NAMES, write


@pytest.fixture(params=NAMES)
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a test of `NiftiSliceWriter` writes, plain and packed, in a folder of its own."""
    (tmp_path / "out").mkdir()
    name: str = request.param
    return tmp_path / "out" / name


@pytest.fixture
def unbroken(output: Path, tmp_path: Path) -> bytes:
    """Bytes of a run without a break and without a journal."""
    other = tmp_path / "unbroken" / output.name
    write(other, resume_key=None)
    return other.read_bytes()
