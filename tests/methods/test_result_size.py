from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import methods.result_size
import util.disk.disk_space
from data.volumes.volume import Volume
from methods.result_size import packed_share, refuse_without_room
from util.errors import UserError


def volume(noise: float) -> Volume:
    values = np.random.default_rng(0).normal(-800, noise, (4, 40, 36))
    return Volume(values.round().astype(np.int16), np.eye(4), "ct.nii")


def test_noise_packs_worse_than_nothing() -> None:
    assert packed_share(volume(0), 2) < 0.02
    assert 0.4 < packed_share(volume(30), 2) <= 1
    assert packed_share(volume(3000), 1) > packed_share(volume(3), 1)


@pytest.mark.parametrize(
    ("free", "packed", "plain", "begun", "fits"),
    [
        (100, 60, 40, 0, True),
        (99, 0, 100, 0, False),
        (99, 0, 100, 1, True),
        (10, 100, 0, 0, True),  # of zeros
        (50, 100, 60, 0, False),
        (50, 100, 60, 20, True),
    ],
)
def test_room_is_needed_for_what_is_left_after_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    free: int, packed: float, plain: float, begun: float, fits: bool,
) -> None:  # fmt: skip
    for module in (methods.result_size, util.disk.disk_space):
        monkeypatch.setattr(module, "free_space", lambda folder: free)
    if fits:
        refuse_without_room(tmp_path, volume(0), 2, packed, plain, begun)
        return
    with pytest.raises(UserError, match="free, the result takes about"):
        refuse_without_room(tmp_path, volume(0), 2, packed, plain, begun)
