"""medicaltest.py --export: G_A for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from method_helpers import POLICY
from training_helpers import write_checkpoint

import medicaltest
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator
from util.errors import run_command_line

onnx = pytest.importorskip("onnx")


def export(checkpoint: Path, path: Path, *more: str, code: int = 0) -> None:
    words = ["--gpu_ids", "-1", "--checkpoint", str(checkpoint), "--export", str(path), *more]
    assert run_command_line(medicaltest.main, words) == code


def test_the_file_says_how_to_use_it_and_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    openvino = pytest.importorskip("openvino")
    checkpoint = write_checkpoint(tmp_path / "checkpoints", "run")
    path = tmp_path / "folder" / "model.onnx"
    export(checkpoint, path)
    assert f"wrote {path}: input `clinical`" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    resolver = SuperResolver.from_checkpoint(checkpoint, "cpu")

    stored = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert stored["scale"] == "2"
    assert len(stored["weights"]) == 64
    assert json.loads(stored["windows"]) == POLICY.as_dict()

    core = openvino.Core()
    model = core.read_model(str(path))
    assert [size.is_dynamic for size in model.input(0).partial_shape] == [True, False, True, True]
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((20, 24), (33, 17)):
        image = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        found = compiled(image[None, None])[0][0, 0]
        np.testing.assert_allclose(found, resolver.upscale_slice(image), atol=1e-4)


def test_a_file_that_is_there_is_kept_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoints", "run")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    export(checkpoint, path, code=2)
    assert capsys.readouterr().err == (
        f"error: {path} exists already: --overwrite replaces it, or give another name\n"
    )
    assert path.read_bytes() == b"old"
    export(checkpoint, path, "--overwrite")
    assert path.stat().st_size > 1000


def test_bare_weights_can_be_exported(tmp_path: Path) -> None:
    weights = tmp_path / "latest_net_G_A.pth"
    torch.save(SRGenerator(2, ngf=4, blocks=1).state_dict(), weights)
    export(weights, tmp_path / "model.onnx")
    stored = onnx.load(str(tmp_path / "model.onnx")).metadata_props
    windows = json.loads(next(entry.value for entry in stored if entry.key == "windows"))
    assert windows["normalization"] == "minmax"
