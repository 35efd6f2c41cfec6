"""An experiment shows what belongs to its checkpoint, however a run that would replace it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.aside import ASIDE, SHOWN, forget_aside, give_back, given_back_unless_saved, put_aside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an experiment that was trained once; with a page, without a validation."""
    (tmp_path / "latest.pt").write_bytes(b"weights")
    (tmp_path / "loss_log.csv").write_text("old", encoding="utf-8")
    (tmp_path / "web" / "images").mkdir(parents=True)
    (tmp_path / "web" / "images" / "one.png").write_bytes(b"picture")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def begin(folder: Path) -> None:
    """As a run that takes the place of another one, until its first checkpoint."""
    put_aside(folder)
    (folder / "loss_log.csv").write_text("new", encoding="utf-8")
    (folder / "validation.csv").write_text("new", encoding="utf-8")
    (folder / "web" / "images" / "one.png").unlink()


def save(folder: Path) -> None:
    (folder / "latest.pt").write_bytes(b"other weights")
    forget_aside(folder)


def test_a_run_that_fails_before_its_first_checkpoint_leaves_all_as_it_was(folder: Path) -> None:
    before = contents(folder)

    def fail() -> None:
        with given_back_unless_saved(folder):
            begin(folder)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        fail()
    assert contents(folder) == before


def test_what_a_killed_run_left_is_undone_by_the_next_one(folder: Path) -> None:
    before = contents(folder)
    begin(folder)
    with given_back_unless_saved(folder):
        assert contents(folder) == before


def test_what_is_saved_stays(folder: Path) -> None:
    with given_back_unless_saved(folder):
        begin(folder)
        save(folder)
        after = contents(folder)
        assert after["loss_log.csv"] == b"new"
    assert contents(folder) == after


def test_a_run_killed_right_after_its_first_checkpoint_keeps_what_is_its_own(folder: Path) -> None:
    begin(folder)
    (folder / "latest.pt").write_bytes(b"other weights")
    with given_back_unless_saved(folder):
        assert contents(folder)["loss_log.csv"] == b"new"
        assert not (folder / ASIDE).exists()


def test_giving_back_may_be_broken_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)
    begin(folder)
    with monkeypatch.context() as patch:
        patch.setattr("training.aside.forget_aside", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            give_back(folder)
    give_back(folder)
    assert contents(folder) == before


def test_of_a_checkpoint_without_logs_nothing_new_is_left(tmp_path: Path) -> None:
    (tmp_path / "latest.pt").write_bytes(b"weights")
    before = contents(tmp_path)
    put_aside(tmp_path)
    (tmp_path / "loss_log.csv").write_text("new", encoding="utf-8")
    give_back(tmp_path)
    assert contents(tmp_path) == before


def test_a_new_folder_has_nothing_to_put_aside(tmp_path: Path) -> None:
    put_aside(tmp_path)
    assert contents(tmp_path) == {}
    assert not (tmp_path / ASIDE).exists()
    assert "loss_log.csv" in SHOWN
