from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from training.monitor.training_monitor import TensorBoardLog
from util.errors import UserError


def test_curves_and_pictures_are_read_back(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    board = TensorBoardLog(tmp_path, 0)
    for step in (1, 2):
        board.scalars(step, {"G": step / 4, "D_A": 1.0}, "losses")
    board.scalars(2, {"psnr": 21.5}, "validation")
    board.pictures(2, {"fake_B": np.full((6, 5), 128, dtype=np.uint8)})
    board.flush()
    found = event_accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("losses/G")] == [(1, 0.25), (2, 0.5)]
    assert [e.value for e in found.Scalars("validation/psnr")] == [21.5]
    (picture,) = found.Images("fake_B")
    assert (picture.height, picture.width, picture.step) == (6, 5, 2)


def test_steps_beyond_the_checkpoint_are_hidden(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    first = TensorBoardLog(tmp_path, 0)
    for step in (1, 2, 3):
        first.scalars(step, {"G": 1.0}, "losses")
    first.flush()
    second = TensorBoardLog(tmp_path, 1)
    second.scalars(2, {"G": 5.0}, "losses")
    second.flush()
    found = event_accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("losses/G")] == [(1, 1.0), (2, 5.0)]


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="needs the package tensorboard: pip install tensorboard"):
        TensorBoardLog(tmp_path, 0)
