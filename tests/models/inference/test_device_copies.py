from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import CPU, images

from models.inference.device_copies import DeviceCopies, exact_convolutions

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


def test_exact_convolutions_keep_cudnn_and_leave_out_tf32() -> None:
    flags = torch.backends.cudnn
    before = flags.enabled, flags.allow_tf32
    with exact_convolutions:
        assert flags.enabled
        assert not flags.allow_tf32
    assert (flags.enabled, flags.allow_tf32) == before


ASKED_FOR_TF32 = """
import torch
from models.inference.device_copies import exact_convolutions

def told():
    cudnn = torch.backends.cudnn
    return [torch.backends.fp32_precision, cudnn.fp32_precision, cudnn.conv.fp32_precision,
            cudnn.rnn.fp32_precision, cudnn.allow_tf32]

{place}.fp32_precision = {precision!r}
outside = told()
with exact_convolutions:
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert not torch.backends.cudnn.allow_tf32
assert told() == outside
"""


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")
@pytest.mark.parametrize(
    ("place", "precision"),
    [("torch.backends", "tf32"), ("torch.backends.cudnn", "tf32"), ("torch.backends", "none")],
)
def test_tf32_that_a_program_has_asked_for_is_left_out_and_comes_back(
    place: str, precision: str
) -> None:
    """In a process of its own: torch's flags of the two ways cannot be put back apart."""
    code = ASKED_FOR_TF32.format(place=place, precision=precision)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_of_two_threads_the_last_one_puts_the_flags_back() -> None:
    """Two resolvers of one process: the first to end must not make the other one round."""
    first_ends, ended = threading.Event(), threading.Event()

    def first() -> None:
        with exact_convolutions:
            entered.set()
            first_ends.wait(60)
        ended.set()

    entered = threading.Event()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        thread = threading.Thread(target=first)
        thread.start()
        assert entered.wait(60)
        with exact_convolutions:
            first_ends.set()
            assert ended.wait(60)
            assert not torch.backends.cudnn.allow_tf32
        thread.join()
        assert torch.backends.cudnn.allow_tf32


def test_an_error_puts_the_flags_back() -> None:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        with pytest.raises(ValueError, match="within"), exact_convolutions:
            raise ValueError("within")
        assert torch.backends.cudnn.allow_tf32


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
