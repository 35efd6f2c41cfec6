from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import CPU, images

from models.inference.device_copies import DeviceCopies

ROOT = Path(__file__).resolve().parents[3]
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


@pytest.mark.gpu
def test_streams_use_the_same_map_one_after_the_other() -> None:
    device = torch.device("cuda")
    copies, shared = DeviceCopies(device), torch.zeros(4096, 4096, device=device)
    results: list[torch.Tensor] = []
    for value in range(4):
        with torch.cuda.stream(torch.cuda.Stream(device)), copies.in_order():
            shared.fill_(value)
            for _ in range(50):
                shared.add_(1)
            results.append(shared.clone())
    torch.cuda.synchronize(device)
    for value, result in enumerate(results):
        assert torch.all(result == value + 50)
