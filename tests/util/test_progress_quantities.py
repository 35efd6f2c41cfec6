"""Numbers in words."""

from __future__ import annotations

import pytest

from util.progress import format_bytes, format_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (10.1e9, "10.1 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (720, "12 min"), (12600, "3.5 h"), (200000, "2.3 days")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
