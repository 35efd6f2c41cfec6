"""Stopping train.py at any step and going on gives what an uninterrupted run gives, bit by bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import assert_same, assert_same_run
from training_helpers import TINY_RUN, TINY_STEPS, loss_rows, write_training_data

import train
import util.interrupt
from models.checkpoints.checkpoint import load_checkpoint
from models.medical_cycle_gan import MedicalCycleGANModel
from training.monitor.training_monitor import TrainingMonitor
from util.errors import EXIT_INTERRUPTED, run_command_line

# A pool that fills at once, a penalty at random points and a scanner for each patch: all sources of
# chance are in use.
RANDOM_PARTS = (
    *("--pool_size", "2", "--gan_mode", "wgangp"),
    *("--scanner", "random", "--lambda_pair", "1", "--micro_mix", "0.5"),
)
RESUME = ("--continue_train",)


pytestmark = pytest.mark.usefixtures("undrawn_curves")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    return write_training_data(tmp_path / "volumes")


def command(*words: str) -> int:
    return run_command_line(train.main, list(words))


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Do `action` once, when the losses of `step` are recorded."""
    record = TrainingMonitor.record

    def watched(monitor: TrainingMonitor, epoch: int, now: int, losses: Any) -> None:
        record(monitor, epoch, now, losses)
        if now == step:
            monkeypatch.setattr(TrainingMonitor, "record", record)
            action()

    monkeypatch.setattr(TrainingMonitor, "record", watched)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_twice() -> None:
    interrupt()
    interrupt()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, ...], Path]:
    """Words of a run, and the folder of the same run, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    words = (*TINY_RUN, *write_training_data(folder), *RANDOM_PARTS, "--no_html")
    assert command(*words, "--name", "whole", "--checkpoints_dir", str(folder)) == 0
    return words, folder / "whole"


@pytest.mark.slow
@pytest.mark.parametrize(("step", "threads"), [(1, 0), (3, 0), (4, 0), (9, 0), (4, 2)])
def test_a_stopped_run_goes_on_exactly(
    whole: tuple[tuple[str, ...], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
    threads: int,
) -> None:
    """Steps 3 and 9 end an epoch, the last of which ends training."""
    monkeypatch.chdir(tmp_path)
    words, expected = whole
    at_step(monkeypatch, step, interrupt)
    assert command(*words, "--num_threads", str(threads), "--name", "parts") == EXIT_INTERRUPTED
    err = capsys.readouterr().err
    assert f"stopped after step {step} (epoch {1 + (step - 1) // 3}); go on with: " in err
    assert "bash run.sh --continue_train --name parts --gpu_ids -1\n" in err
    folder = Path("checkpoints/parts")
    assert load_checkpoint(folder / "latest.pt")["position"]["step"] == step
    assert len(loss_rows(folder)) == step
    # No other flag is repeated: the stored options are taken.
    assert command(*RESUME, "--name", "parts") == 0
    assert_same_run(expected, folder)
    assert len(loss_rows(folder)) == TINY_STEPS


@pytest.mark.slow
def test_workers_change_nothing(data: tuple[str, ...]) -> None:
    words = (*TINY_RUN, *data, "--no_html", "--niter", "1", "--niter_decay", "1")
    assert command(*words, "--name", "none") == 0
    assert command(*words, "--name", "two", "--num_threads", "2") == 0
    assert_same_run(Path("checkpoints/none"), Path("checkpoints/two"))


def test_a_run_stopped_several_times_goes_on_exactly(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*TINY_RUN, *data, *RANDOM_PARTS)
    assert command(*words, "--name", "whole") == 0
    at_step(monkeypatch, 2, terminate)
    assert command(*words, "--name", "parts") == EXIT_INTERRUPTED
    for step in (5, 6, 7):
        at_step(monkeypatch, step, interrupt)
        assert command(*RESUME) == EXIT_INTERRUPTED  # the run that was trained last
    assert command(*RESUME) == 0
    assert_same_run(Path("checkpoints/whole"), Path("checkpoints/parts"))
    rows = json.loads(Path("checkpoints/parts/web/rows.json").read_text(encoding="utf-8"))["rows"]
    # The picture of epoch 2's end (step 6) is lost with the batch it would have shown.
    assert [row["iterations"] for row in rows] == [3, 9]


@pytest.mark.slow
def test_a_run_that_died_goes_on_from_its_last_checkpoint(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*TINY_RUN, *data, *RANDOM_PARTS, "--no_html", "--save_latest_freq", "2")
    assert command(*words, "--name", "whole") == 0
    monkeypatch.setattr(util.interrupt, "TOGETHER", -1.0)  # a person is slower
    at_step(monkeypatch, 5, interrupt_twice)
    assert command(*words, "--name", "parts", "--print_freq", "1") == EXIT_INTERRUPTED
    assert capsys.readouterr().err.endswith("interrupted\n")
    folder = Path("checkpoints/parts")
    assert load_checkpoint(folder / "latest.pt")["position"]["step"] == 4
    assert command(*RESUME) == 0
    assert_same_run(Path("checkpoints/whole"), folder)


@pytest.mark.slow
def test_any_kept_checkpoint_can_be_gone_on_from(data: tuple[str, ...]) -> None:
    words = (*TINY_RUN, *data, "--no_html", "--save_latest_freq", "4", "--save_by_iter")
    assert command(*words, "--name", "run", "--save_epoch_freq", "1") == 0
    folder = Path("checkpoints/run")
    whole = load_checkpoint(folder / "latest.pt")["networks"]
    log = (folder / "loss_log.csv").read_bytes()
    for choice in (("--epoch", "1"), ("--load_iter", "4"), ("--epoch", "2")):
        assert command(*RESUME, *choice) == 0
        assert_same(load_checkpoint(folder / "latest.pt")["networks"], whole, "networks")
        assert (folder / "loss_log.csv").read_bytes() == log


@pytest.mark.slow
def test_a_finished_run_takes_more_epochs(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*TINY_RUN, *data, "--no_html", "--niter_decay", "0", "--lr_policy", "constant")
    assert command(*words, "--niter", "3", "--name", "whole") == 0
    assert command(*words, "--niter", "1", "--name", "parts") == 0
    assert command(*RESUME) == 2
    assert "is trained to its last epoch 1 (niter + niter_decay): give a larger --niter" in (
        capsys.readouterr().err
    )
    assert command(*RESUME, "--niter", "3") == 0
    assert_same_run(Path("checkpoints/whole"), Path("checkpoints/parts"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("linear", [1e-3] * 4 + [1e-4] * 2 + [5e-5] * 3),
        ("constant", [1e-3] * 4 + [1e-4] * 5),
        ("cosine", [1e-3] * 3 + [7.5e-4] + [7.5e-5] * 2 + [2.5e-5] * 3),
        ("plateau", [1e-3] * 4 + [1e-4] * 5),
    ],
)
def test_a_resumed_run_takes_another_learning_rate(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, policy: str, expected: list[float]
) -> None:
    rates: list[float] = []
    step = MedicalCycleGANModel.optimize_parameters

    def watched(model: MedicalCycleGANModel) -> None:
        groups = [group for o in model.optimizers.values() for group in o.param_groups]
        assert len({group["lr"] for group in groups}) == 1
        rates.append(model.learning_rate)
        step(model)

    monkeypatch.setattr(MedicalCycleGANModel, "optimize_parameters", watched)
    at_step(monkeypatch, 4, interrupt)
    words = (*TINY_RUN, *data, "--no_html", "--lr_policy", policy, "--name", "run")
    assert command(*words) == EXIT_INTERRUPTED
    assert command(*RESUME, "--lr", "1e-4", "--beta1", "0.9") == 0
    assert rates == pytest.approx(expected)
    state = load_checkpoint(Path("checkpoints/run/latest.pt"))["optimizers"]["G"]
    assert tuple(state["param_groups"][0]["betas"]) == (0.9, 0.999)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch_num", "1"), "goes on after 4 patches of its epoch, but an epoch now has 1"),
        (("--ngf", "8"), "was trained with --ngf 4, got 8: leave --ngf out to go on"),
        (("--lr_policy", "cosine"), "was trained with --lr_policy linear, got cosine"),
        (("--epoch", "7"), "no checkpoint checkpoints/run/epoch_7.pt: there is latest.pt"),
        (("--name", "nothing"), "no checkpoint checkpoints/nothing/latest.pt"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    data: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    at_step(monkeypatch, 2, interrupt)
    assert command(*TINY_RUN, *data, "--no_html", "--name", "run") == EXIT_INTERRUPTED
    before = Path("checkpoints/run/latest.pt").read_bytes()
    capsys.readouterr()
    assert command(*RESUME, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert Path("checkpoints/run/latest.pt").read_bytes() == before


def test_the_resume_command_names_another_checkpoint_folder(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(monkeypatch, 1, interrupt)
    words = ("--no_html", "--name", "my run", "--checkpoints_dir", "else where")
    assert command(*TINY_RUN, *data, *words) == EXIT_INTERRUPTED
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith(
        "bash run.sh --continue_train --name 'my run' --checkpoints_dir 'else where' --gpu_ids -1"
    )


@pytest.mark.slow
def test_weights_of_the_original_code_are_trained_further(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*TINY_RUN, *data, "--no_html", "--niter", "1", "--niter_decay", "1")
    assert command(*words, "--name", "source") == 0
    networks = load_checkpoint(Path("checkpoints/source/latest.pt"))["networks"]
    folder = Path("checkpoints/old")
    folder.mkdir()
    for name, weights in networks.items():
        torch.save(weights, folder / f"latest_net_{name}.pth")
    assert command(*words, "--name", "old", "--continue_train", "--epoch_count", "2") == 0
    assert [row["epoch"] for row in loss_rows(folder)] == ["2", "2", "2"]
    assert (folder / "latest.pt").is_file()


@pytest.mark.slow
def test_a_run_goes_on_with_patches_of_another_size(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pools hold images of the size before."""
    at_step(monkeypatch, 4, interrupt)
    words = (*TINY_RUN, *data, "--no_html", "--name", "run", "--batch_num", "20")
    assert command(*words) == EXIT_INTERRUPTED
    capsys.readouterr()
    assert command(*RESUME, "--clinical_patch_size", "12", "--batch_num", "15") == 0
    told = capsys.readouterr().out
    assert "patches have another size now: the discriminators forget the images" in told
    assert "an epoch has 15 patches, not 20 as before: epoch 1 goes on with the last 7" in told
    assert len(loss_rows(Path("checkpoints/run"))) == 4 + 4 + 2 * 8


@pytest.mark.slow
def test_options_that_end_the_first_step_leave_those_of_before(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(monkeypatch, 4, interrupt)
    assert command(*TINY_RUN, *data, "--no_html", "--name", "run") == EXIT_INTERRUPTED
    kept = Path("checkpoints/run/options.json").read_bytes()

    def fail(model: MedicalCycleGANModel) -> None:
        raise MemoryError("too large")

    with monkeypatch.context() as patched:
        patched.setattr(MedicalCycleGANModel, "optimize_parameters", fail)
        assert command(*RESUME, "--batch_size", "4") == 2
    assert Path("checkpoints/run/options.json").read_bytes() == kept
    assert command(*RESUME) == 0
    whole = (*TINY_RUN, *data, "--no_html", "--name", "whole")
    assert command(*whole) == 0
    assert_same_run(Path("checkpoints/whole"), Path("checkpoints/run"))
