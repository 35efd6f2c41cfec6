"""What a run starts from, and what it says about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_helpers import TINY_RUN, write_training_data

import train
import training.setup

pytestmark = pytest.mark.usefixtures("undrawn_curves")


@pytest.mark.parametrize(
    ("preset", "other"),
    [("demo", "adapt"), ("adapt", "paper"), ("paper", "demo")],
)
def test_the_preset_line_names_the_one_that_is_asked_for_next(preset: str, other: str) -> None:
    options = train.TrainOptions().parse(["--preset", preset], lambda: 0)[0]
    line = training.setup.preset_line(options, "cuda")
    start = "random weights" if preset == "paper" else options.init_weights
    assert line.startswith(f"preset {preset} on cuda, from {start} (another: --preset {other}, ")


@pytest.mark.slow
def test_weights_that_know_tissue_by_other_values_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*TINY_RUN, *write_training_data(tmp_path / "volumes"), "--no_html"]
    assert train.main([*words, "--name", "first"]) == 0
    again = [*words, "--niter", "1", "--niter_decay", "0"]
    again += ["--init_weights", "checkpoints/first/latest.pt"]
    capsys.readouterr()
    assert train.main([*again, "--name", "same"]) == 0
    assert "warning: --init_weights" not in capsys.readouterr().out
    assert train.main([*again, "--name", "other", "--windows", "clinical=-1024:600"]) == 0
    told = "--init_weights were made for clinical CT in -1000:500 HU, got -1024:600 HU"
    assert told in capsys.readouterr().out
