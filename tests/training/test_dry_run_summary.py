from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_helpers import tiny_batch, tiny_model, tiny_options

import train
from models.medical_cycle_gan import MODELS
from training.dry_run import measure_step, summary
from util.errors import run_command_line


def measured(*words: str) -> tuple[int, int, int]:
    options = tiny_options("--clinical_patch_size", "32", *words)
    return measure_step(MODELS[options.model](options, torch.device("meta")))


def test_arithmetic_is_that_of_a_real_step() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny_model("--engine", "eager")
    model.set_input(tiny_batch())
    with FlopCounterMode(display=False) as counter:
        model.optimize_parameters()
    forward, backward, _ = measured("--engine", "eager")
    assert forward + backward == counter.get_total_flops()


@pytest.mark.slow
def test_a_batch_twice_as_large_needs_twice_as_much() -> None:
    single, double = measured("--batch_size", "1"), measured("--batch_size", "2")
    assert double[0] == 2 * single[0]
    assert double[1] == 2 * single[1]
    assert 1.9 < double[2] / single[2] <= 2


@pytest.mark.slow
def test_the_fused_engine_and_bf16_keep_less() -> None:
    eager, fused = measured("--engine", "eager"), measured()
    assert fused[2] < 0.6 * eager[2]
    assert measured("--precision", "bf16")[2] < 0.7 * fused[2]


def test_what_is_kept_is_what_torch_keeps() -> None:
    """In the layers of torch on the CPU, counted by their own storages."""
    model = tiny_model("--engine", "eager")
    model.set_input(tiny_batch())
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.forward()
        model._freeze_discriminators(True)
        model.generator_loss()
    found = sum(storage.nbytes() for storage in kept.values())
    assert measured("--engine", "eager")[2] == pytest.approx(found, rel=0.05)


@pytest.mark.slow
def test_train_prints_the_summary_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command_line(train.main, ["--summary", "--preset", "paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "medical_cycle_gan, 8x, batch 4, fp32"
    assert [line.split()[0] for line in lines[1:5]] == ["G_A", "G_B", "D_A", "D_B"]
    assert "SRGenerator" in lines[1]
    assert "797,973 parameters" not in lines[1]  # that is 4x
    assert lines[5].startswith("arithmetic of a step  ")
    assert lines[6].startswith("memory of a step      about ")
    assert list(tmp_path.iterdir()) == []


def test_a_note_where_the_maps_are_counted_too_large() -> None:
    assert "autocast" in summary(tiny_options("--precision", "bf16", "--engine", "eager"))
    assert "autocast" not in summary(tiny_options("--precision", "bf16"))


@pytest.mark.parametrize("preset", ["demo", "adapt", "best"])
def test_presets_with_the_cubic_skip_are_counted_too(
    preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The skip leaves autocast, which knows no meta device."""
    words = ["--summary", "--gpu_ids", "-1", "--preset", preset]
    assert run_command_line(train.main, words) == 0
    assert "memory of a step" in capsys.readouterr().out
