from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import CPU, images

from models.inference.device_copies import (
    FORMATS,
    DeviceCopies,
    best_memory_format,
    exact_convolutions,
    remembered,
)

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


def test_a_cpu_takes_channels_last_without_a_trial() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert best_memory_format(CPU, dtype) == torch.channels_last


def test_a_choice_is_made_once_and_kept(tmp_path: Path) -> None:
    """Two formats about as fast must not take turns: they round differently."""
    kept, calls = tmp_path / "cache" / "format.txt", []

    def choose() -> torch.memory_format:
        calls.append(1)
        return FORMATS[len(calls) % 2]

    assert [remembered(kept, choose) for _ in range(3)] == [FORMATS[1]] * 3
    for damaged in (b"", b"torch.chan", b"\xff\xfe"):
        kept.write_bytes(damaged)
        calls.clear()
        assert remembered(kept, choose) == remembered(kept, choose)
        assert len(calls) == 1
    assert remembered(None, choose) != remembered(None, choose)
    assert remembered(kept / "no_folder", choose) in FORMATS


@pytest.mark.gpu
def test_a_gpu_takes_one_of_both_formats() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        found = best_memory_format(torch.device("cuda"), dtype)
        assert found in (torch.channels_last, torch.contiguous_format)


def test_exact_convolutions_keep_cudnn_and_leave_out_tf32() -> None:
    flags = torch.backends.cudnn
    before = flags.enabled, flags.allow_tf32
    with exact_convolutions():
        assert flags.enabled
        assert not flags.allow_tf32
    assert (flags.enabled, flags.allow_tf32) == before
