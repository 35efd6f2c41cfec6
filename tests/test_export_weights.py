"""scripts/export_weights.py: from checkpoints to the file that is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import write_checkpoint

from models.checkpoints.checkpoint import load_generator
from models.checkpoints.shipped_weights import read_weights
from models.inference.case_enlarger import CaseEnlarger
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from scripts.export_weights import main
from util.errors import run_command_line

NETWORK = ("--norm", "none", "--skip", "cubic", "--init_gain", "0.1")


def export(tmp_path: Path, *words: str) -> int:
    common = ["--training", "phantom, seed 0", "--licence", "BSD-3-Clause"]
    command = ["--out", str(tmp_path / "weights" / "sr_x2.safetensors"), *common, *words]
    return run_command_line(main, command)


def test_a_checkpoint_becomes_weights_with_their_facts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_checkpoint(tmp_path, "first", *NETWORK)
    assert export(tmp_path, "--checkpoint", str(path)) == 0
    out = tmp_path / "weights" / "sr_x2.safetensors"
    assert load_generator(out).digest == load_generator(path).digest
    facts = read_weights(out)[1]
    assert (facts["training"], facts["step"], facts["dataset_mode"]) == (
        "phantom, seed 0", 5, "unpaired",
    )  # fmt: skip
    assert load_generator(path).digest[:16] in capsys.readouterr().out


def test_a_blend_lies_on_the_way_between_two(tmp_path: Path) -> None:
    first, second = (
        write_checkpoint(tmp_path, name, *NETWORK, seed=seed)
        for seed, name in enumerate(("first", "second"))
    )
    words = ("--checkpoint", str(first), "--blend", str(second), "--share", "0.25")
    assert export(tmp_path, *words) == 0
    ends = [load_generator(path).generator.state_dict() for path in (first, second)]
    found = load_generator(tmp_path / "weights" / "sr_x2.safetensors").generator.state_dict()
    for name, weight in found.items():
        torch.testing.assert_close(weight, 0.75 * ends[0][name] + 0.25 * ends[1][name])


def test_the_factor_on_the_spread_travels_with_the_weights(tmp_path: Path) -> None:
    texture = ("--texture_noise", "2", "--lambda_texture", "1")
    path = write_checkpoint(tmp_path, "first", *NETWORK, *texture)
    assert export(tmp_path, "--checkpoint", str(path), "--spread", "1.4") == 0
    out = tmp_path / "weights" / "sr_x2.safetensors"
    assert (load_generator(out).spread, load_generator(path).spread) == (1.4, 1.0)
    plain, stated = (SuperResolver.from_checkpoint(file, "cpu") for file in (path, out))
    (drawn,), (widened,) = (
        CaseEnlarger(resolver, uncertainty=True).enlarge([SliceJob(np.zeros((9, 8), np.float32))])
        for resolver in (plain, stated)
    )
    assert drawn is not None
    assert widened is not None
    assert drawn.deviation is not None
    assert widened.deviation is not None
    np.testing.assert_allclose(widened.deviation, 1.4 * drawn.deviation, rtol=1e-5)
    np.testing.assert_array_equal(widened.unit, drawn.unit)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--spread", "1.5"), "--spread: "),
        (("--share", "1.5"), "--share 1.5: expected 0 to 1"),
        (("--out", "a.pt"), "--out a.pt: expected a name that ends in .safetensors"),
    ],
)
def test_nonsense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    path = write_checkpoint(tmp_path, "first", *NETWORK)
    assert export(tmp_path, "--checkpoint", str(path), "--blend", str(path), *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")
    assert not (tmp_path / "weights").exists()


def test_blends_of_two_architectures_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_checkpoint(tmp_path, "first", *NETWORK)
    other = write_checkpoint(tmp_path, "other")
    assert export(tmp_path, "--checkpoint", str(first), "--blend", str(other)) == 2
    assert "give two of one architecture" in capsys.readouterr().err
