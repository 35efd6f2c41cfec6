from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import util.devices
from util.devices import (
    arithmetic_name,
    check_precision,
    choose_devices,
    count_gpus,
    has_bf16,
    warn_of_emulated_bf16,
)
from util.errors import UserError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util.devices, "count_gpus", lambda: 2)


def test_all_takes_every_gpu(two_gpus: None) -> None:
    assert choose_devices("all") == [torch.device("cuda:0"), torch.device("cuda:1")]


def test_all_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util.devices, "count_gpus", lambda: 0)
    assert choose_devices("all") == [torch.device("cpu")]


def test_minus_one_is_the_cpu_and_asks_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> int:
        raise AssertionError("GPUs were counted")

    monkeypatch.setattr(util.devices, "count_gpus", asked)
    assert choose_devices("-1") == [torch.device("cpu")]


@pytest.mark.parametrize(("words", "indices"), [("1", [1]), ("0,1", [0, 1]), ("1,0", [1, 0])])
def test_gpus_by_number_in_the_order_given(two_gpus: None, words: str, indices: list[int]) -> None:
    assert choose_devices(words) == [torch.device("cuda", index) for index in indices]


def test_a_gpu_that_is_not_there_is_refused(two_gpus: None) -> None:
    message = "names GPU 2, found 2: give numbers below 2, or -1 for the CPU"
    with pytest.raises(UserError, match=message):
        choose_devices("0,2")


def test_gpus_are_counted_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_gpus() == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert count_gpus() == 3


def test_importing_the_module_does_not_load_torch() -> None:
    code = "import sys, util.devices; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_a_devices_name_tells_what_rounds_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arithmetic_name(torch.device("cpu")) == f"cpu {torch.backends.cpu.get_cpu_capability()}"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert arithmetic_name(torch.device("cuda:1")) == "card 1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", True),
        ("flags\t: fpu amx_bf16\nflags\t: fpu\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t: fpu avx2 avx512f\nbf16\t: no\n", False),
        ("Features\t: fp asimd\n", False),
        ("model name\t: bf16\n", None),
    ],
)
def test_bf16_of_a_cpu(tmp_path: Path, text: str, expected: bool | None) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text, encoding="utf-8")
    assert has_bf16(torch.device("cpu"), path) is expected


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert has_bf16(torch.device("cpu"), tmp_path / "missing") is None


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_bf16_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bf16(torch.device("cuda:0")) is expected


@pytest.mark.parametrize(
    ("precision", "device", "capability", "refused"),
    [
        ("fp32", "cpu", None, False),
        ("bf16", "cpu", None, False),
        ("tf32", "cpu", None, True),
        ("fp16", "cpu", None, True),
        ("tf32", "cuda:0", (7, 5), True),
        ("tf32", "cuda:0", (8, 0), False),
        ("fp16", "cuda:0", (7, 5), False),
    ],
)
def test_arithmetic_that_a_device_has_not_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    device: str,
    capability: tuple[int, int] | None,
    refused: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "card")
    if not refused:
        check_precision(precision, torch.device(device))
        return
    with pytest.raises(UserError, match=f"--precision {precision} is arithmetic of NVIDIA GPUs"):
        check_precision(precision, torch.device(device))


SET_UP = """
import os, torch
from util.devices import set_up_cudnn
set_up_cudnn()
flags = torch.backends.cudnn
assert (flags.allow_tf32, flags.benchmark) == (False, True)
torch.cuda.is_available = lambda: True
set_up_cudnn("tf32", deterministic=True)
assert (flags.allow_tf32, flags.benchmark) == (True, False)
assert torch.are_deterministic_algorithms_enabled()
assert torch.is_deterministic_algorithms_warn_only_enabled()
assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
"""


def test_what_training_asks_of_a_gpu() -> None:
    """In a process of its own, whose flags nothing else sees."""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", SET_UP], cwd=root, check=True)


@pytest.mark.parametrize(("supported", "lines"), [(True, 0), (None, 0), (False, 1)])
def test_emulated_bf16_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    supported: bool | None,
    lines: int,
) -> None:
    monkeypatch.setattr(util.devices, "has_bf16", lambda device: supported)
    warn_of_emulated_bf16(torch.device("cpu"))
    err = capsys.readouterr().err
    assert err.count("\n") == lines == err.count("has no bf16 arithmetic")


TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver."
)


def test_a_gpu_that_torch_cannot_use_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unusable() -> bool:
        warnings.warn(TOO_OLD, stacklevel=1)
        return False

    monkeypatch.setattr(util.devices, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", unusable)
    assert choose_devices("all") == [torch.device("cpu")]
    err = capsys.readouterr().err
    assert err.startswith("warning: the GPU is not used: CUDA initialization: The NVIDIA driver")
    assert "(found version 11040) (torch 2" in err
    assert err.endswith("needs the driver of CUDA 13.0)\n")
    assert err.count("\n") == 1
    with pytest.raises(UserError, match="names GPU 0, found none: CUDA initialization: The NVIDIA"):
        choose_devices("0")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert choose_devices("all") == [torch.device("cpu")]
    assert "this torch was built without CUDA" in capsys.readouterr().err
    assert choose_devices("-1") == [torch.device("cpu")]
    assert capsys.readouterr().err == ""


def test_a_machine_without_a_gpu_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(util.devices, "NVIDIA_DRIVER", tmp_path / "none")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_devices("all") == [torch.device("cpu")]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="found none: the machine shows no NVIDIA driver; -1"):
        choose_devices("0")
