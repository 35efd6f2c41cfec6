from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_helpers import CPU, images

from models.inference.device_copies import DeviceCopies, exact_convolutions

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("name", DEVICES)
def test_values_come_back_as_they_went(name: str) -> None:
    copies = DeviceCopies(torch.device(name))
    for shape in ((1, 4, 4), (3, 17, 9)):
        values = images(*shape)
        there = copies.upload(values)
        assert there.device.type == name
        back = copies.start(there * 2)()
        assert back.dtype == np.float32
        assert np.array_equal(back, values.numpy() * 2)


@pytest.mark.parametrize("name", DEVICES)
def test_copies_that_are_under_way_do_not_disturb_each_other(name: str) -> None:
    copies = DeviceCopies(torch.device(name))
    sources = [images(1, 64, 64, seed=seed) for seed in range(8)]
    pending = [copies.start(copies.upload(source)[:, :, 1:, ::2] + 1) for source in sources]
    for source, wait in reversed(list(zip(sources, pending, strict=True))):
        assert np.array_equal(wait(), source[:, :, 1:, ::2].numpy() + 1)
        assert wait() is not None  # a second call finds the same


def test_on_a_cpu_nothing_is_copied() -> None:
    values = images(1, 8, 8)
    copies = DeviceCopies(CPU)
    assert copies.upload(values) is values
    assert copies.start(values)().ctypes.data == values.data_ptr()


def test_exact_convolutions_keep_cudnn_and_leave_out_tf32() -> None:
    flags = torch.backends.cudnn
    before = flags.enabled, flags.allow_tf32
    with exact_convolutions():
        assert flags.enabled
        assert not flags.allow_tf32
    assert (flags.enabled, flags.allow_tf32) == before
