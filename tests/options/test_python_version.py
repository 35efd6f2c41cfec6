"""A Python that is too old gets one line."""

from __future__ import annotations

import sys

import pytest

from options.python_version import refuse_other_pythons


def test_an_old_python_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(SystemExit) as leaving:
        refuse_other_pythons()
    assert leaving.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: this is Python 3.9.18 (")
    assert "expected 3.10 to 3.13: bash run.sh" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 2), (3, 15, 0)])
def test_others_are_not(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    refuse_other_pythons()
