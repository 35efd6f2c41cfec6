from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_helpers import save_state, tiny_model

from models.checkpoints.checkpoint import load_checkpoint
from models.checkpoints.experiment_folder import (
    checkpoint_path,
    keep_previous,
    last_experiment,
    load_newest,
    prune_checkpoints,
    remember_experiment,
    superseded_checkpoints,
)
from training.state import Position
from util.errors import UserError


def test_names_of_checkpoints(tmp_path: Path) -> None:
    assert checkpoint_path(tmp_path, "latest", 0).name == "latest.pt"
    assert checkpoint_path(tmp_path, "12", 0).name == "epoch_12.pt"
    assert checkpoint_path(tmp_path, "12", 700).name == "iter_700.pt"


def test_pruning_keeps_the_newest_by_number(tmp_path: Path) -> None:
    names = ["latest", "epoch_5", "epoch_10", "epoch_100", "iter_9", "iter_10", "iter_200"]
    for name in names:
        (tmp_path / f"{name}.pt").touch()
    (tmp_path / "epoch_notes.pt").touch()
    prune_checkpoints(tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == 8
    prune_checkpoints(tmp_path, 2)
    assert sorted(p.stem for p in tmp_path.iterdir()) == [
        "epoch_10", "epoch_100", "epoch_notes", "iter_10", "iter_200", "latest",
    ]  # fmt: skip


def test_the_last_experiment_is_remembered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing has been trained yet .*bash run\.sh"):
        last_experiment(tmp_path)
    remember_experiment(tmp_path, "first")
    remember_experiment(tmp_path, "second")
    assert last_experiment(tmp_path) == "second"
    remember_experiment(tmp_path, "caf\udce9")  # bytes that are no UTF-8
    assert last_experiment(tmp_path) == "caf\udce9"
    remember_experiment(tmp_path, "second ")  # another one than "second"
    assert last_experiment(tmp_path) == "second "


def test_a_run_that_begins_earlier_voids_what_lies_beyond(tmp_path: Path) -> None:
    for name in ("latest", "previous", "best", "epoch_5", "epoch_10", "iter_40", "iter_90"):
        (tmp_path / f"{name}.pt").touch()
    back = superseded_checkpoints(tmp_path, epoch=6, step=50, fresh=False, goes_back=False)
    assert sorted(path.stem for path in back) == ["epoch_10", "iter_90"]
    anew = superseded_checkpoints(tmp_path, epoch=1, step=0, fresh=True, goes_back=False)
    assert {path.stem for path in anew} == {path.stem for path in tmp_path.iterdir()}
    other = superseded_checkpoints(tmp_path, epoch=6, step=50, fresh=False, goes_back=True)
    assert set(other) - set(back) == {tmp_path / "previous.pt"}


def saved_steps(folder: Path, *steps: int) -> None:
    """Save latest.pt once after each of these steps."""
    model = tiny_model()
    for step in steps:
        save_state(folder / "latest.pt", model, Position(1, step=step))


def newest_step(folder: Path, lines: list[str]) -> int:
    return int(load_newest(folder, lines.append)["position"]["step"])


@pytest.mark.parametrize("links", [True, False])
def test_the_checkpoint_before_the_latest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refused(*arguments: object) -> None:
            raise OSError("no hard links here")

        monkeypatch.setattr(Path, "hardlink_to", refused)
    saved_steps(tmp_path, 1, 2, 3)
    assert load_checkpoint(tmp_path / "latest.pt")["position"]["step"] == 3
    assert load_checkpoint(tmp_path / "previous.pt")["position"]["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.pt", "previous.pt"]
    lines: list[str] = []
    assert newest_step(tmp_path, lines) == 3
    assert lines == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_off_is_passed_over_with_a_word(
    tmp_path: Path, share: float
) -> None:
    saved_steps(tmp_path, 1, 2)
    latest = tmp_path / "latest.pt"
    latest.write_bytes(latest.read_bytes()[: int(share * latest.stat().st_size)])
    lines: list[str] = []
    assert newest_step(tmp_path, lines) == 1
    assert lines == [
        f"{latest} is missing or cut off: going on from the one before it, "
        f"{tmp_path / 'previous.pt'}"
    ]
    saved_steps(tmp_path, 3)  # what is damaged never becomes the one before
    assert load_checkpoint(tmp_path / "previous.pt")["position"]["step"] == 1
    (tmp_path / "previous.pt").unlink()
    latest.write_bytes(b"")
    with pytest.raises(UserError, match=r"latest\.pt cannot be read as a checkpoint"):
        load_newest(tmp_path, lines.append)


def test_a_checkpoint_cut_off_while_written_is_not_used(tmp_path: Path) -> None:
    saved_steps(tmp_path, 1)
    partial = tmp_path / "latest.pt.partial"
    partial.write_bytes((tmp_path / "latest.pt").read_bytes()[:5000])
    lines: list[str] = []
    assert newest_step(tmp_path, lines) == 1
    assert lines == [f"{partial} was cut off while it was written and is not used"]


def test_a_moment_without_a_latest_checkpoint_is_bridged(tmp_path: Path) -> None:
    saved_steps(tmp_path, 4)
    keep_previous(tmp_path / "latest.pt")
    (tmp_path / "latest.pt").unlink()
    assert newest_step(tmp_path, []) == 4


def test_what_is_whole_but_unfit_is_not_passed_over(tmp_path: Path) -> None:
    saved_steps(tmp_path, 1, 2)
    state = torch.load(tmp_path / "latest.pt", weights_only=True)
    torch.save({**state, "version": 99}, tmp_path / "latest.pt")
    with pytest.raises(UserError, match="version 99"):
        load_newest(tmp_path, print)
