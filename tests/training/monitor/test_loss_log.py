from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from training.monitor.loss_log import LossLog, NonFiniteLossError
from util.errors import UserError


def _record(log: LossLog, steps: range) -> None:
    for step in steps:
        log.record(1 + (step - 1) // 4, step, {"G_A": torch.tensor(step / 3), "D_A": 0.5 * step})


def test_rows_and_means(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "run" / "losses.csv", ["G_A", "D_A"])
    assert log.flush() == {}
    log.record(1, 1, {"D_A": torch.tensor([2.0]), "G_A": torch.tensor(0.1, dtype=torch.float64)})
    log.record(1, 2, {"D_A": 4, "G_A": 0.3})
    assert log.flush() == pytest.approx({"G_A": 0.2, "D_A": 3.0})
    log.record(2, 3, {"D_A": torch.tensor(1e-5, dtype=torch.float32), "G_A": 1.0})
    assert log.flush()["D_A"] == pytest.approx(1e-5)
    assert log.path.read_text() == "epoch,step,G_A,D_A\n1,1,0.1,2.0\n1,2,0.3,4.0\n2,3,1.0,1e-05\n"


def test_recorded_values_survive_a_step_that_overwrites_them(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "losses.csv", ["G"])
    loss = torch.tensor(1.0)
    log.record(1, 1, {"G": loss})
    loss.fill_(100.0)
    assert log.flush() == {"G": 1.0}


def test_the_gradient_graph_is_let_go(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "losses.csv", ["G"])
    weight = torch.tensor(2.0, requires_grad=True)
    log.record(1, 1, {"G": weight * 3})
    assert not any(value.requires_grad for value in log._values)


def test_recording_moves_nothing_and_flushing_moves_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = []
    move = torch.Tensor.cpu

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        moves.append(tensor.shape)
        return move(tensor)

    def refused(tensor: torch.Tensor) -> float:
        raise AssertionError("a loss was read back, which waits for the device")

    log = LossLog(tmp_path / "losses.csv", ["G_A", "D_A"])
    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    monkeypatch.setattr(torch.Tensor, "item", refused)
    monkeypatch.setattr(torch.Tensor, "__float__", refused)
    _record(log, range(1, 6))
    assert moves == []
    log.flush()
    assert moves == [(5, 2)]


@pytest.mark.gpu
def test_recording_does_not_wait_for_cuda(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "losses.csv", ["G_A", "D_A"])
    loss = torch.tensor(0.25, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        log.record(1, 1, {"G_A": loss, "D_A": 0.5})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert log.flush() == {"G_A": 0.25, "D_A": 0.5}


def test_first_loss_that_is_not_finite_is_named_after_its_row_is_written(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "losses.csv", ["G_A", "cycle_A", "D_A"])
    log.record(3, 7, {"G_A": 1.0, "cycle_A": 1.0, "D_A": 1.0})
    log.record(3, 8, {"G_A": 1.0, "cycle_A": torch.tensor(math.nan), "D_A": math.inf})
    log.record(3, 9, {"G_A": math.nan, "cycle_A": 1.0, "D_A": 1.0})
    with pytest.raises(NonFiniteLossError, match=r"cycle_A is nan at step 8, .*resume") as info:
        log.flush()
    error = info.value
    assert isinstance(error, UserError)
    assert (error.step, error.name) == (8, "cycle_A")
    assert math.isnan(error.value)
    assert log.path.read_text().splitlines()[1:] == [
        "3,7,1.0,1.0,1.0",
        "3,8,1.0,nan,inf",
        "3,9,nan,1.0,1.0",
    ]
    assert log.flush() == {}


def test_a_resumed_run_leaves_the_csv_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = LossLog(tmp_path / "whole.csv", ["G_A", "D_A"])
    _record(whole, range(1, 13))
    whole.flush()

    cut = LossLog(tmp_path / "cut.csv", ["G_A", "D_A"])
    _record(cut, range(1, 9))
    cut.flush()  # the checkpoint is saved here, at step 8
    _record(cut, range(9, 11))
    cut.flush()
    with cut.path.open("a") as stream:
        stream.write("3,1")  # and here the power went: step 11 began to be written

    resumed = LossLog(tmp_path / "cut.csv", ["G_A", "D_A"])
    resumed.truncate_after(8)
    assert len(resumed.path.read_text().splitlines()) == 9
    _record(resumed, range(9, 13))
    resumed.flush()
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_truncating_at_zero_starts_afresh_and_needs_no_file(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "losses.csv", ["G_A", "D_A"])
    log.truncate_after(0)
    assert not log.path.exists()
    _record(log, range(1, 3))
    log.flush()
    log.truncate_after(0)
    assert log.path.read_text() == "epoch,step,G_A,D_A\n"
    _record(log, range(1, 2))
    log.flush()
    assert log.path.read_text().count("epoch") == 1


def test_other_losses_are_refused(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "losses.csv", ["G_A", "D_A"])
    with pytest.raises(ValueError, match=r"got losses \['G_A'\], expected \['D_A', 'G_A'\]"):
        log.record(1, 1, {"G_A": 1.0})
    _record(log, range(1, 2))
    log.flush()
    with pytest.raises(UserError, match=r"has the columns epoch,step,G_A,D_A, this run records"):
        LossLog(tmp_path / "losses.csv", ["G_A"])


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read the loss log .*losses\.csv"):
        LossLog(tmp_path / "losses.csv", ["G"])
    (tmp_path / "taken").write_text("")
    log = LossLog(tmp_path / "taken" / "losses.csv", ["G"])
    log.record(1, 1, {"G": 1.0})
    with pytest.raises(UserError, match="cannot write the loss log"):
        log.flush()


def _health(log: LossLog, *rows: tuple[float, float]) -> None:
    """Record a row for each (loss, skipped)."""
    for step, (loss, skipped) in enumerate(rows, start=1):
        log.record(1, step, {"skipped": skipped, "G": loss})


def test_steps_that_were_left_out_do_not_count(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "log.csv", ["skipped", "G"], allowed_skips=2)
    _health(log, (1.0, 0), (math.nan, 1), (math.inf, 1), (3.0, 0))
    assert log.flush() == {"skipped": 0.0, "G": 2.0}
    assert log.path.read_text().splitlines()[2] == "1,2,1.0,nan"


def test_too_many_steps_left_out_in_a_row_end_training_also_over_two_flushes(
    tmp_path: Path,
) -> None:
    log = LossLog(tmp_path / "log.csv", ["skipped", "G"], allowed_skips=2)
    _health(log, (1.0, 0), (math.nan, 1))
    log.flush()
    _health(log, (math.nan, 1), (math.nan, 1))
    with pytest.raises(NonFiniteLossError, match="loss G is nan at step 2"):
        log.flush()


def test_where_none_may_be_left_out_the_first_ends_training(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "log.csv", ["skipped", "G"])
    _health(log, (math.nan, 1))
    with pytest.raises(NonFiniteLossError, match="loss G is nan at step 1"):
        log.flush()


def test_a_log_with_fewer_columns_is_widened(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("epoch,step,G\n1,1,0.5\n1,2,0.25\n")
    log = LossLog(path, ["D_A", "G"])
    log.truncate_after(1)
    log.record(1, 2, {"D_A": 2.0, "G": 0.75})
    log.flush()
    assert path.read_text() == "epoch,step,D_A,G\n1,1,,0.5\n1,2,2.0,0.75\n"


def test_a_process_that_only_watches_writes_nothing(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "log.csv", ["G"], writes=False)
    log.truncate_after(0)
    log.record(1, 1, {"G": 0.5})
    assert log.flush() == {"G": 0.5}
    log.record(1, 2, {"G": math.nan})
    with pytest.raises(NonFiniteLossError):
        log.flush()
    assert not log.path.exists()
