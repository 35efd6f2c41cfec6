"""train.py with held-back slices: scores, the best checkpoint, patience, TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from run_helpers import assert_same_run
from training_helpers import TINY_RUN, write_case, write_micro

import train
from models.checkpoints.checkpoint import load_checkpoint
from util.errors import run_command_line

pytestmark = pytest.mark.usefixtures("undrawn_curves")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    clinical = write_case(tmp_path / "clinical", "ct", (24, 20, 6))
    micro = write_micro(tmp_path / "micro", "specimen", (40, 36, 6))
    return ("--all_clinical_paths", str(clinical), "--all_micro_paths", str(micro), "--no_html")


def command(*words: str, code: int = 0) -> None:
    assert run_command_line(train.main, list(words)) == code


def scores(name: str) -> list[dict[str, str]]:
    with Path(f"checkpoints/{name}/validation.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_scores_are_logged_and_the_best_epoch_is_kept(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--niter", "4", "--niter_decay", "0", "--save_epoch_freq", "1")
    command(*TINY_RUN, *data, *words, "--val_slices", "-2:", "--val_metric", "ssim", "--name", "a")
    rows = scores("a")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert list(rows[0]) == ["epoch", "step", "psnr", "ssim", "consistency"]
    best = max(range(4), key=lambda index: float(rows[index]["ssim"]))
    kept = load_checkpoint(Path("checkpoints/a/best.pt"))
    assert kept["position"]["best_epoch"] == best + 1
    assert kept["position"]["best"] == pytest.approx(float(rows[best]["ssim"]), rel=1e-6)
    same = load_checkpoint(Path(f"checkpoints/a/epoch_{best + 1}.pt"))["networks"]
    for name, weights in kept["networks"].items():
        assert all(torch.equal(weight, same[name][key]) for key, weight in weights.items())
    out, err = capsys.readouterr()
    assert "4 squares of held-back slices are scored every 1 epochs" in out
    assert "epoch 1: PSNR " in out
    assert "(cubic spline: PSNR " in out
    assert "on held-back data cubic spline interpolation is better" in err
    assert Path("checkpoints/a/curves.png").is_file()
    command("--continue_train", "--name", "a", "--epoch", "best", "--niter", "5")
    assert scores("a")[-1]["epoch"] == "5"
    again = load_checkpoint(Path("checkpoints/a/best.pt"))["position"]
    assert again["best"] >= kept["position"]["best"]  # what it began from is not lost


@pytest.mark.slow
def test_a_best_checkpoint_of_an_abandoned_branch_goes(data: tuple[str, ...]) -> None:
    words = ("--niter", "3", "--niter_decay", "0", "--save_epoch_freq", "1", "--lr", "0")
    command(*TINY_RUN, *data, *words, "--val_slices", "-2:", "--name", "a")
    state = load_checkpoint(Path("checkpoints/a/latest.pt"))
    torch.save(state, "checkpoints/a/best.pt")  # as if the last epoch had been the best
    command("--continue_train", "--name", "a", "--epoch", "1", "--niter", "2")
    assert load_checkpoint(Path("checkpoints/a/best.pt"))["position"]["best_epoch"] == 2


@pytest.mark.slow
def test_another_score_begins_anew_and_patience_waits_for_one(data: tuple[str, ...]) -> None:
    schedule = ("--lr_policy", "constant", "--niter_decay", "0")
    command(*TINY_RUN, *data, *schedule, "--niter", "2", "--slices", ":-2", "--name", "a")
    more = ("--continue_train", "--name", "a", "--val_slices", "-2:", "--patience", "1")
    command(*more, "--val_freq", "2", "--niter", "4")
    assert [row["epoch"] for row in scores("a")] == ["4"]
    command(*more, "--val_metric", "ssim", "--niter", "6")
    position = load_checkpoint(Path("checkpoints/a/latest.pt"))["position"]
    assert position["best_metric"] == "ssim"
    assert position["best"] < 1.01
    assert position["best_epoch"] == 6


@pytest.mark.slow
def test_other_held_back_data_begin_anew_and_none_ends_patience(
    data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = ("--lr_policy", "constant", "--niter_decay", "0", "--windows", "micro=0:9000")
    other = write_micro(tmp_path / "other", "second", (40, 36, 3), seed=8)
    third = write_micro(tmp_path / "other", "third", (40, 36, 3), seed=9)
    words = ("--val_micro_paths", str(other), "--patience", "1", "--lr", "0")
    command(*TINY_RUN, *data, *schedule, *words, "--niter", "4", "--name", "a")
    assert [row["epoch"] for row in scores("a")] == ["1", "2"]
    more = ("--continue_train", "--name", "a", "--niter", "6")
    command(*more, "--val_micro_paths", str(third))
    told = capsys.readouterr().out
    assert "the held-back data are others than before: best.pt and --patience begin anew" in told
    assert [row["epoch"] for row in scores("a")] == ["1", "2", "3", "4"]
    best = load_checkpoint(Path("checkpoints/a/best.pt"))["position"]
    assert best["best_epoch"] == 3
    command(*more, "--patience", "none")
    assert [row["epoch"] for row in scores("a")] == ["1", "2", "3", "4", "5", "6"]
    assert "begin anew" not in capsys.readouterr().out


@pytest.mark.slow
def test_slices_that_the_run_was_trained_on_before_are_refused(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    command(*TINY_RUN, *data, "--windows", "micro=0:9000", "--niter", "1", "--name", "a")
    capsys.readouterr()
    command("--continue_train", "--name", "a", "--niter", "3", "--val_slices", "-2:", code=2)
    assert "holds slices that are trained on" in capsys.readouterr().err
    command("--continue_train", "--name", "a", "--niter", "3")  # the options are as before


@pytest.mark.slow
def test_validation_changes_nothing_of_the_training(data: tuple[str, ...]) -> None:
    words = (*TINY_RUN, *data, "--slices", ":-2", "--windows", "micro=0:9000")
    command(*words, "--name", "without")
    command(*words, "--val_slices", "-2:", "--val_freq", "2", "--name", "with")
    first, second = (
        load_checkpoint(Path(f"checkpoints/{n}/latest.pt")) for n in ("without", "with")
    )
    for name, weights in first["networks"].items():
        for key, weight in weights.items():
            assert torch.equal(weight, second["networks"][name][key])
    assert [row["epoch"] for row in scores("with")] == ["2"]


def test_patience_ends_a_run_that_gets_no_better_and_a_stop_is_exact(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    still = ("--lr", "0", "--lr_policy", "constant", "--niter", "9", "--niter_decay", "0")
    command(*TINY_RUN, *data, *still, "--val_slices", ":2", "--patience", "2", "--name", "still")
    assert [row["epoch"] for row in scores("still")] == ["1", "2", "3"]
    out = capsys.readouterr().out
    assert (
        "no better psnr in 2 validations since epoch 1: stopping; best.pt holds that epoch" in out
    )


@pytest.mark.slow
def test_a_run_with_validation_goes_on_exactly(data: tuple[str, ...]) -> None:
    words = (
        *TINY_RUN,
        *data,
        "--val_slices",
        "-2:",
        "--lr_policy",
        "constant",
        "--niter_decay",
        "0",
    )
    command(*words, "--niter", "3", "--name", "whole")
    command(*words, "--niter", "2", "--name", "parts")
    command("--continue_train", "--name", "parts", "--niter", "3")
    assert_same_run(Path("checkpoints/whole"), Path("checkpoints/parts"))
    assert scores("whole") == scores("parts")


def test_tensorboard_files_are_written(data: tuple[str, ...]) -> None:
    pytest.importorskip("tensorboard")
    command(*TINY_RUN, *data, "--tensorboard", "--display_freq", "2", "--name", "board")
    (events,) = Path("checkpoints/board/tensorboard").iterdir()
    assert events.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--val_slices", "2:4"), "expected slices at one end, such as -20: or :20"),
        (("--val_slices", "-2:", "--slices", ":3"), "leaves :-2 for training, got --slices :3"),
        (("--patience", "3"), "--patience has no effect without held-back data"),
        (("--val_slices", "-6:"), "holds no slice of a volume of 6"),
    ],
)
def test_what_cannot_be_validated_is_refused_in_one_line(
    data: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    try:
        code = run_command_line(train.main, [*TINY_RUN, *data, *words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
