"""In which arithmetic a GPU's convolutions are computed, and that a CPU's keep to it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import CPU, image

from models.checkpoints.checkpoint import load_generator
from models.inference.precision import fp32_convolutions, stored_type
from models.inference.slice_engine import NormSource, SliceEngine
from util.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
GPU = torch.device("cuda")  # the flags are there without one


@pytest.mark.parametrize("rounded", [False, True])
def test_fp32_convolutions_keep_cudnn_and_round_where_asked(rounded: bool) -> None:
    flags = torch.backends.cudnn
    before = flags.enabled, flags.allow_tf32
    with fp32_convolutions(GPU, rounded):
        assert flags.enabled
        assert flags.allow_tf32 == rounded
    assert (flags.enabled, flags.allow_tf32) == before


ASKED_FOR = """
import torch
from models.inference.precision import fp32_convolutions

def told():
    cudnn = torch.backends.cudnn
    return [torch.backends.fp32_precision, cudnn.fp32_precision, cudnn.conv.fp32_precision,
            cudnn.rnn.fp32_precision, cudnn.allow_tf32]

{place}.fp32_precision = {precision!r}
outside = told()
for rounded, expected in ((False, "ieee"), (True, "tf32")):
    with fp32_convolutions(torch.device("cuda"), rounded):
        assert torch.backends.cudnn.conv.fp32_precision == expected
        assert torch.backends.cudnn.allow_tf32 == rounded
    assert told() == outside
"""


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")
@pytest.mark.parametrize(
    ("place", "precision"),
    [("torch.backends", "tf32"), ("torch.backends.cudnn", "tf32"), ("torch.backends", "none")],
)
def test_what_a_program_has_asked_for_has_no_say_and_comes_back(place: str, precision: str) -> None:
    """In a process of its own: torch's flags of the two ways cannot be put back apart."""
    code = ASKED_FOR.format(place=place, precision=precision)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_two_threads_take_turns() -> None:
    """Two resolvers of one process: neither may compute with the other one's flags."""
    order: list[str] = []
    entered, goes_on = threading.Event(), threading.Event()

    def rounding() -> None:
        with fp32_convolutions(GPU, rounded=True):
            entered.set()
            goes_on.wait(60)
            order.append(f"first {torch.backends.cudnn.allow_tf32}")

    def exact() -> None:
        with fp32_convolutions(GPU):
            order.append(f"second {torch.backends.cudnn.allow_tf32}")

    threads = [threading.Thread(target=rounding), threading.Thread(target=exact)]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    threads[1].join(0.1)
    goes_on.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first True", "second False"]


def test_an_error_puts_the_flags_back() -> None:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        with pytest.raises(ValueError, match="within"), fp32_convolutions(GPU):
            raise ValueError("within")
        assert torch.backends.cudnn.allow_tf32


def test_a_precision_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="'half', expected one of fp32, tf32, bf16, fp16"):
        stored_type("half", CPU)


@pytest.mark.parametrize(
    "weights", sorted(ROOT.glob("weights/*.safetensors")), ids=lambda p: p.stem
)
@pytest.mark.parametrize("look", [np.asarray, np.sign], ids=["grey", "extreme"])
def test_fp16_holds_the_maps_of_the_shipped_weights(weights: Path, look: np.ufunc) -> None:
    """Its largest number is 65504; a CPU rounds as a GPU does. bf16 is off by ten times as much."""
    values = torch.from_numpy(look(image(32, 32)).astype(np.float32))[None, None]
    generator = load_generator(weights).generator
    found = []
    for dtype in (torch.float32, torch.float16):
        engine = SliceEngine(generator, CPU, dtype)
        with torch.inference_mode():
            found.append(engine.enlarge(values, NormSource(), 1).numpy())
    difference = 750 * np.abs(found[1] - found[0])  # HU of a window of 1500
    assert 0 < difference.mean() < 0.5
    assert difference.max() < 15
