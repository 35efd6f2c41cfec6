"""train.py in process, on volumes of a few thousand voxels and networks of four channels."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import TINY_RUN, TINY_STEPS, loss_rows, write_training_data

import train
import training.saver
import training.setup
from data.formats.readers import read_volume
from models.base_model import NETWORKS
from models.checkpoints.checkpoint import load_checkpoint, load_generator
from models.checkpoints.experiment_folder import last_experiment
from models.loss_names import LOGGED
from models.medical_cycle_gan import MedicalCycleGANModel
from training.monitor.training_monitor import TrainingMonitor
from util.errors import UserError, run_command_line

pytestmark = pytest.mark.usefixtures("undrawn_curves")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Words that name tiny volumes; checkpoints go to the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return write_training_data(tmp_path / "volumes")


def run(data: tuple[str, ...], *words: str, name: str = "run") -> Path:
    """Train to the end; returns the experiment's folder."""
    assert train.main([*TINY_RUN, *data, "--name", name, *words]) == 0
    return Path("checkpoints") / name


def weights(folder: Path, name: str = "latest") -> dict[str, torch.Tensor]:
    networks = load_checkpoint(folder / f"{name}.pt")["networks"]
    return {f"{net}/{key}": value for net in NETWORKS for key, value in networks[net].items()}


def test_a_run_leaves_everything_that_is_needed(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(data, "--update_html_freq", "2", "--print_freq", "4", "--save_epoch_freq", "1")
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.png", "epoch_1.pt", "epoch_2.pt", "epoch_3.pt", "latest.pt", "loss_log.csv",
        "options.json", "options.txt", "previous.pt", "run.json", "web",
    ]  # fmt: skip
    assert last_experiment(Path("checkpoints")) == "run"

    rows = loss_rows(folder)
    assert [(row["epoch"], row["step"]) for row in rows] == [
        (str(1 + step // 3), str(step + 1)) for step in range(TINY_STEPS)
    ]
    assert list(rows[0]) == ["epoch", "step", *LOGGED]
    assert all(math.isfinite(float(row[name])) for row in rows for name in LOGGED)

    stored = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    assert (stored["name"], stored["ngf"], stored["lr"]) == ("run", 4, 1e-3)
    printed = capsys.readouterr().out
    assert (folder / "options.txt").read_text(encoding="utf-8") in printed
    assert "preset demo on cpu, from random weights (another: --preset adapt, from" in printed
    assert "5 patches and 3 steps an epoch, 3 epochs" in printed
    assert "trained: checkpoints/run/latest.pt; try it with: bash test.sh" in printed

    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["steps"], record["device"]) == (0, TINY_STEPS, "cpu")
    assert record["data"] == {"clinical": [data[1]], "micro": [data[3]]}
    assert record["outputs"] == ["checkpoints/run/latest.pt"]
    assert torch.__version__.startswith(record["versions"]["torch"])

    shown = json.loads((folder / "web" / "rows.json").read_text(encoding="utf-8"))["rows"]
    # Every second step, and each epoch's end.
    assert [row["iterations"] for row in shown] == [2, 3, 4, 6, 8, 9]
    assert [entry["label"] for entry in shown[0]["images"]] == [
        "real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B",
    ]  # fmt: skip
    page = (folder / "web" / "index.html").read_text(encoding="utf-8")
    assert all((folder / "web" / entry["file"]).is_file() for entry in shown[-1]["images"])
    assert "epoch 3, iteration 9" in page


def test_the_checkpoint_is_all_that_testing_needs(data: tuple[str, ...]) -> None:
    folder = run(
        data, "--no_html", "--windows", "micro=0:9000", "--niter", "1", "--max_dataset_size", "3"
    )
    loaded = load_generator(folder / "latest.pt")
    assert loaded.generator.architecture == {
        "sampling_times": 1, "ngf": 4, "blocks": 6, "norm": "instance", "skip": "none",
        "texture": 0,
    }  # fmt: skip
    assert loaded.windows == {
        "normalization": "window",
        "clinical": {"low": -1000.0, "high": 500.0},
        "micro": {"low": 0.0, "high": 9000.0},
    }
    assert loaded.step == 2 * 2
    expected = {d for path in (data[1], data[3]) for d in read_volume(path).slice_digests()}
    assert loaded.training_digests == expected
    assert not (folder / "web").exists()
    assert loaded.options["max_dataset_size"] == 3


def test_training_moves_every_network_and_a_seed_repeats_it(data: tuple[str, ...]) -> None:
    words = ("--no_html", "--niter", "1", "--niter_decay", "0")
    first = weights(run(data, *words, "--save_by_iter", "--save_latest_freq", "1"))
    start = weights(Path("checkpoints/run"), "iter_1")
    for net in NETWORKS:
        keys = [key for key in first if key.startswith(net) and first[key].dim() == 4]
        assert all(not torch.equal(first[key], start[key]) for key in keys)
    again = weights(run(data, *words, name="again"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = weights(run(data, *words, "--seed", "1", name="other"))
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.slow
def test_the_learning_rate_decays(data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = MedicalCycleGANModel.optimize_parameters

    def watched(model: MedicalCycleGANModel) -> None:
        rates.append(model.learning_rate)
        step(model)

    monkeypatch.setattr(MedicalCycleGANModel, "optimize_parameters", watched)
    run(data, "--no_html", "--niter", "2", "--niter_decay", "2", "--max_dataset_size", "2")
    assert rates == pytest.approx([1e-3, 1e-3, 2e-3 / 3, 1e-3 / 3])
    rates.clear()
    words = ("--lr_policy", "constant", "--niter_decay", "1", "--max_dataset_size", "2")
    run(data, "--no_html", *words, name="constant")
    assert rates == [1e-3, 1e-3, 1e-3]


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "left"), [("2", [3, 4]), ("0", [1, 2, 3, 4])])
def test_checkpoints_are_pruned(data: tuple[str, ...], keep: str, left: list[int]) -> None:
    words = ("--niter", "3", "--save_epoch_freq", "1", "--max_dataset_size", "2", "--keep", keep)
    folder = run(data, "--no_html", *words, "--save_by_iter", "--save_latest_freq", "1")
    assert (folder / "latest.pt").is_file()
    for kind in ("epoch", "iter"):
        found = sorted(int(path.stem.split("_")[1]) for path in folder.glob(f"{kind}_*.pt"))
        assert found == left


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "expected"), [("1e-9", [1, 2, 3, 4, 4]), ("60", [2, 4, 4])])
def test_an_old_checkpoint_is_written_again(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, minutes: str, expected: list[int]
) -> None:
    """Besides those of every second step and of the epoch's end."""
    saved: list[int] = []
    save = training.saver.save_training_state

    def watched(paths: Any, model: Any, options: Any, position: Any, *more: Any) -> None:
        saved.append(position.step)
        save(paths, model, options, position, *more)

    monkeypatch.setattr(training.saver, "save_training_state", watched)
    words = ("--niter", "1", "--niter_decay", "0", "--max_dataset_size", "4", "--batch_size", "1")
    run(data, "--no_html", *words, "--save_latest_freq", "2", "--save_every_minutes", minutes)
    assert saved == expected


def test_only_every_so_many_epochs_are_kept_and_the_last(data: tuple[str, ...]) -> None:
    folder = run(
        data, "--no_html", "--niter", "4", "--save_epoch_freq", "3", "--max_dataset_size", "2"
    )
    assert sorted(path.name for path in folder.glob("*_*.pt")) == ["epoch_3.pt", "epoch_5.pt"]


def test_a_model_is_not_replaced_without_a_word(data: tuple[str, ...]) -> None:
    words = ("--no_html", "--niter", "1", "--niter_decay", "0", "--max_dataset_size", "2")
    folder = run(data, *words)
    before = (folder / "latest.pt").read_bytes()
    with pytest.raises(UserError, match="already holds a model: --continue_train goes on"):
        run(data, *words)
    assert (folder / "latest.pt").read_bytes() == before


@pytest.mark.slow
def test_overwrite_leaves_nothing_of_the_earlier_run(data: tuple[str, ...]) -> None:
    folder = run(data, "--niter", "3", "--save_epoch_freq", "1", "--save_by_iter",
                 "--save_latest_freq", "2", "--keep", "0", "--update_html_freq", "1")  # fmt: skip
    words = ("--niter", "1", "--niter_decay", "0", "--max_dataset_size", "4", "--keep", "1")
    run(data, *words, "--overwrite")
    # Not the old epoch 4, which has a greater number than any new one.
    assert [path.name for path in folder.glob("*_*.pt")] == ["epoch_1.pt"]
    assert [row["step"] for row in loss_rows(folder)] == ["1", "2"]
    rows = json.loads((folder / "web" / "rows.json").read_text(encoding="utf-8"))["rows"]
    assert [row["iterations"] for row in rows] == [2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--gan_mode", "wgangp"),
        ("--gan_mode", "vanilla"),
        ("--netD", "n_layers", "--n_layers_D", "1", "--norm", "batch"),
        ("--precision", "bf16"),
        ("--lambda_identity", "0.5", "--fixed_patches", "--serial_batches", "--no_flip"),
        ("--lr_policy", "plateau", "--degradation", "zoom", "--pool_size", "1"),
    ],
    ids=" ".join,
)
def test_other_settings_train(data: tuple[str, ...], words: tuple[str, ...]) -> None:
    rows = loss_rows(run(data, "--no_html", "--niter", "1", *words))
    assert len(rows) == 6
    assert float(rows[0]["G"]) != float(rows[-1]["G"])


def test_the_public_setting_trains_on_clinical_ct_alone(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(data[:2], "--dataset_mode", "public_2D", "--niter", "1")
    assert len(loss_rows(folder)) == 6
    assert "micro    " not in capsys.readouterr().out
    digests = load_generator(folder / "latest.pt").training_digests
    assert digests == set(read_volume(data[1]).slice_digests())


def test_minmax_is_kept_with_the_weights(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(data, "--no_html", "--normalization", "minmax", "--niter", "1")
    windows = load_generator(folder / "latest.pt").windows
    assert windows is not None
    assert windows["normalization"] == "minmax"
    assert "windows  each volume's own range (as published)" in capsys.readouterr().out


def test_folders_slices_and_masks_by_flag(data: tuple[str, ...], tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    folders = (
        "--clinical_folder",
        str(volumes / "clinical"),
        "--micro_folder",
        str(volumes / "micro"),
    )
    words = ("--slices", ":2", "--maskdatafolder", str(volumes / "clinical"), "--niter", "1")
    folder = run(folders, "--no_html", *words, "--cache_dir", str(tmp_path / "cache"))
    digests = load_generator(folder / "latest.pt").training_digests
    assert len(digests) == 4
    assert any((tmp_path / "cache").iterdir())


def test_without_a_visdom_server_training_goes_on(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ("--display_id", "1", "--display_port", str(port), "--display_freq", "1")
    run(data, "--no_html", *words, "--print_freq", "1", "--display_server", "http://127.0.0.1")
    assert capsys.readouterr().err.count("training goes on without it") == 1


# ---- when training cannot go on ----


def stop_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run as the command does; returns its last line on standard error at exit code 2."""
    assert run_command_line(train.main, [*TINY_RUN, *words]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def finite(folder: Path, name: str = "latest") -> bool:
    return all(bool(value.isfinite().all()) for value in weights(folder, name).values())


def test_a_diverging_loss_stops_training_and_names_the_last_good_checkpoint(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = TrainingMonitor.record

    def broken(monitor: TrainingMonitor, epoch: int, step: int, losses: dict[str, Any]) -> None:
        if step == 6:
            losses = losses | {"cycle_A": torch.tensor(math.nan)}
        record(monitor, epoch, step, losses)

    monkeypatch.setattr(TrainingMonitor, "record", broken)
    words = ("--no_html", "--save_latest_freq", "2", "--save_by_iter", "--name", "run")
    line = stop_line(capsys, *data, *words)
    assert line.startswith("error: loss cycle_A is nan at step 6, expected a finite number: ")
    assert line.endswith("; last good checkpoint: checkpoints/run/latest.pt")
    folder = Path("checkpoints/run")
    assert load_checkpoint(folder / "latest.pt")["position"]["step"] == 4
    assert sorted(path.name for path in folder.glob("iter_*")) == ["iter_2.pt", "iter_4.pt"]
    assert finite(folder)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "started"


def test_a_learning_rate_that_explodes_keeps_no_broken_checkpoint(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--no_html", "--lr", "1e30", "--save_latest_freq", "1", "--name", "run")
    line = stop_line(capsys, *data, *words)
    assert " at step 2, expected a finite number" in line
    assert finite(Path("checkpoints/run"))
    line = stop_line(capsys, *data, "--no_html", "--lr", "1e30", "--name", "other")
    assert line.endswith("; no checkpoint before it")
    assert not Path("checkpoints/other/latest.pt").exists()


def test_a_run_that_would_replace_another_and_fails_at_once_leaves_it_as_it_was(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(data, "--niter", "2", "--save_epoch_freq", "1")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    line = stop_line(capsys, *data, "--overwrite", "--lr", "1e30", "--name", "run")
    assert line.endswith("nothing of it was saved, and checkpoints/run/latest.pt is as it was")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    stop_line(capsys, "--continue_train", "--epoch", "1", "--lr", "1e30", "--name", "run")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert run_command_line(train.main, ["--continue_train", "--name", "run", "--niter", "3"]) == 0
    assert [row["epoch"] for row in loss_rows(folder)][-1] == "4"


def test_weights_that_are_not_finite_are_never_kept(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of a step come before its update, so they cannot tell what it did."""
    step = MedicalCycleGANModel.optimize_parameters
    done: list[int] = []

    def breaking(model: MedicalCycleGANModel) -> None:
        step(model)
        done.append(1)
        if len(done) == 4:
            with torch.no_grad():
                next(model.G_B.parameters()).fill_(math.inf)

    monkeypatch.setattr(MedicalCycleGANModel, "optimize_parameters", breaking)
    line = stop_line(capsys, *data, "--no_html", "--save_latest_freq", "2", "--name", "run")
    assert line.startswith("error: weights of G_B are not finite after step 4: ")
    assert line.endswith("last good checkpoint: checkpoints/run/latest.pt")
    assert load_checkpoint(Path("checkpoints/run/latest.pt"))["position"]["step"] == 3
    assert finite(Path("checkpoints/run"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clinical_patch_size", "32"), "ct.nii.gz"),
        (("--slices", "9:"), "holds no slice"),
        (("--windows", "bone=0:1"), "names no known domain"),
        (("--maskdatafolder", "nowhere"), "mask folder nowhere does not exist"),
    ],
)
def test_data_that_cannot_be_used_leave_one_line_and_no_model(
    data: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    line = stop_line(capsys, *data, "--name", "run", *words)
    assert line.startswith("error: ")
    assert message in line
    assert not list(Path().glob("checkpoints/run/*.pt"))


def test_one_domain_alone_is_refused(
    data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "got no micro-CT: give --micro_folder" in stop_line(capsys, *data[:2])


@pytest.mark.slow
def test_every_step_sees_its_own_patches(
    data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    set_input = MedicalCycleGANModel.set_input

    def watched(model: MedicalCycleGANModel, batch: dict[str, torch.Tensor]) -> None:
        seen.extend(batch["micro"].numpy().copy())
        set_input(model, batch)

    monkeypatch.setattr(MedicalCycleGANModel, "set_input", watched)
    run(data, "--no_html", "--niter", "1", "--niter_decay", "1")
    assert len(seen) == 10
    assert len({patch.tobytes() for patch in seen}) == 10
    seen.clear()
    run(data, "--no_html", "--niter", "1", "--niter_decay", "1", "--fixed_patches", name="fixed")
    assert len({patch.tobytes() for patch in seen}) == 5
