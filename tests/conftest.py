"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch

pytest_plugins = ["browser"]
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from util.errors import UserError  # noqa: E402
from util.privacy import forget_hidden  # noqa: E402

SHARED = ROOT.parent / "shared"
LONGEST_MESSAGE = 300  # characters


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would every test that sends one.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that each take all cores slow each other down many times over.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the long tests, so that none of them is left to one worker at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep every test's unpacked volumes and masks out of the user's own cache folder."""
    monkeypatch.setenv("SR_CYCLEGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def own_cache(private_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that no other test has written to."""
    monkeypatch.setenv("SR_CYCLEGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def short_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message to a user is one line that can be read at a glance, but for paths in it."""
    made = UserError.__init__

    def checked(error: UserError, message: str = "", *rest: object) -> None:
        made(error, message, *rest)
        told = re.sub(r"\S*/\S*", "", str(message))
        if len(told) > LONGEST_MESSAGE or "\n" in told:
            pytest.fail(f"a message of {len(told)} characters: {message}")

    monkeypatch.setattr(UserError, "__init__", checked)


@pytest.fixture(autouse=True)
def nobody_hidden() -> None:
    """What one test's files say of patients is cleared from its own records alone."""
    forget_hidden()


@pytest.fixture
def undrawn_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty pictures of the curves: drawing them takes longer than a tiny run."""
    monkeypatch.setattr(
        "training.monitor.curves.Curves.draw", lambda curves, at_once=True: curves.path.touch()
    )


@pytest.fixture
def shared_data() -> Path:
    """Folder of real volumes kept beside the project; the test is skipped where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("real volumes are not beside the project (../shared/data)")
    return folder
