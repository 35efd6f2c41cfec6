from __future__ import annotations

import io
import time

import pytest

from util.progress import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    for _ in progress(range(40), "slices", unit="slice"):
        time.sleep(0.025)
    return stream.getvalue()


def test_the_bar_tells_count_and_rate_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _shown(_Terminal(), monkeypatch)
    assert "slices: 100%" in shown
    assert "40/40" in shown
    assert "slice/s" in shown
    assert capsys.readouterr().out == ""


def test_a_log_file_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    # A second of work: some drawings on a terminal, only the first and the last in a file.
    assert _shown(_Terminal(), monkeypatch).count("40 [") >= 4
    assert _shown(io.StringIO(), monkeypatch).count("40 [") == 2


def test_total_of_a_generator() -> None:
    assert progress((i for i in range(3)), "x", total=3).total == 3
