"""Runs that are cut off, and --resume: the bytes are those of a run without a break."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from method_helpers import soft_volume, write_ct
from run_helpers import PATIENCE, Inference, start, volumes

from data.partial_file import PartialFile
from data.writers import NiftiSliceWriter
from models.super_resolver import SuperResolver

EVERYTHING = ("--uncertainty", "--consistency", "--norm_scope", "volume")


@pytest.fixture
def inference(tmp_path: Path) -> Inference:
    return Inference(tmp_path)


class CutOffError(Exception):
    """Ends a run as a fault of the program would."""


def cut_off(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, when: Callable[..., bool]
) -> None:
    """Let a method raise once `when` is true of its arguments, instead of doing its work."""
    original = getattr(owner, method)

    def guarded(self: object, *arguments: object) -> object:
        if when(self, *arguments):
            raise CutOffError
        return original(self, *arguments)

    monkeypatch.setattr(owner, method, guarded)


def cut_off_after(monkeypatch: pytest.MonkeyPatch, slices: int) -> None:
    """Let a run end once so many slices of the result are written."""

    def enough(writer: NiftiSliceWriter, values: np.ndarray) -> bool:
        return writer.path.name == "SR.nii.gz" and writer.slices_written == slices

    cut_off(monkeypatch, NiftiSliceWriter, "append", enough)


# ---- killed ----


@pytest.mark.parametrize("more", [(), EVERYTHING], ids=["plain", "everything"])
def test_killed_runs_end_with_the_bytes_of_an_unbroken_one(
    inference: Inference, more: tuple[str, ...]
) -> None:
    unbroken = inference.run("unbroken", *more)
    chosen = random.Random(len(more))
    for slices in (0, chosen.randint(1, 5), chosen.randint(6, 11)):
        inference.stop_after(slices, signal.SIGKILL, "broken", "--resume", *more)
    broken = inference.run("broken", "--resume", *more)
    assert {p.name for p in broken.iterdir()} == {p.name for p in unbroken.iterdir()}
    assert volumes(broken) == volumes(unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_in_order_and_says_how_to_go_on(
    inference: Inference, number: signal.Signals
) -> None:
    # Eight orientations a slice, so that the signal comes before the end.
    code, err = inference.stop_after(1, number, "out", "--uncertainty")
    folder = inference.folder / "out"
    assert code == 130, err
    assert "--resume goes on" in err
    assert "Traceback" not in err
    assert (folder / "SR.nii.gz.partial").exists()
    assert not (folder / "SR.nii.gz").exists()
    inference.run("out", "--uncertainty", "--resume")
    assert (folder / "SR.nii.gz").exists()
    assert not list(folder.glob("*.partial*"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["slices_resumed"] >= 1
    assert record["consistency_error_hu"]["slices"] == 12 - record["slices_resumed"]


# ---- broken off at a chosen place ----


@pytest.mark.parametrize("slices", [1, 4, 6])
@pytest.mark.parametrize("more", [(), EVERYTHING], ids=["grouped", "everything"])
def test_slices_that_shared_a_call_share_it_again(
    inference: Inference,
    monkeypatch: pytest.MonkeyPatch,
    slices: int,
    more: tuple[str, ...],
) -> None:
    """Four slices of this size go through the network at once; ten leave two for the last call."""
    array = soft_volume((64, 64, 10), seed=3)
    ct = write_ct(inference.folder / "wide.nii.gz", array, np.eye(4))
    words = ("--region", "all", *more)
    unbroken = inference.run("unbroken", *words, ct=ct)
    calls: list[int] = []
    started = SuperResolver._start_stack

    def counting(self: SuperResolver, images: np.ndarray) -> object:
        calls.append(len(images))
        return started(self, images)

    with monkeypatch.context() as patch:
        cut_off_after(patch, slices)
        with pytest.raises(CutOffError):
            inference.run("broken", *words, ct=ct)
    monkeypatch.setattr(SuperResolver, "_start_stack", counting)
    broken = inference.run("broken", *words, "--resume", ct=ct)
    assert volumes(broken) == volumes(unbroken)
    if not more:  # whole calls again, from the last one that was complete
        assert calls[: 2 - slices // 4] == [4] * (2 - slices // 4)


@pytest.mark.parametrize("name", ["SR.nii.gz", "clinical.nii.gz", "uncertainty.nii.gz"])
def test_killed_between_the_renames_of_two_files(
    inference: Inference, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """All slices are there; some files have their final names, `name` has not."""
    unbroken = inference.run("unbroken", "--uncertainty")

    def unfinished(file: PartialFile) -> bool:
        return file.path.name == name

    with monkeypatch.context() as patch:
        cut_off(patch, PartialFile, "finish", unfinished)
        with pytest.raises(CutOffError):
            inference.run("out", "--uncertainty")
    folder = inference.folder / "out"
    assert (folder / f"{name}.partial").exists()
    assert not (folder / "run.json").exists()
    inference.run("out", "--uncertainty", "--resume")
    assert {p.name for p in folder.iterdir()} == {p.name for p in unbroken.iterdir()}
    assert volumes(folder) == volumes(unbroken)


@pytest.mark.parametrize("missing", ["run.json", "preview.png", "clinical.nii.gz"])
def test_what_is_missing_beside_a_result_is_made(inference: Inference, missing: str) -> None:
    """Killed before the picture or the record was written, or a file was deleted."""
    unbroken = inference.run("unbroken")
    folder = inference.run("out")
    (folder / missing).unlink()
    inference.run("out", "--resume")
    assert (folder / missing).stat().st_size > 0
    assert volumes(folder) == volumes(unbroken)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    inference: Inference, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken = inference.run("unbroken")
    capsys.readouterr()
    written = PartialFile.write

    def full(self: PartialFile, piece: object) -> None:
        if self.slices >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(self, piece)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "write", full)
        folder = inference.run("out", code=2)
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert "cannot be written (No space left on device): give a folder" in errors[0]
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{name}.nii.gz.partial{end}" for name in ("SR", "clinical") for end in ("", ".journal")
    ]
    inference.run("out", "--resume")
    assert volumes(folder) == volumes(unbroken)


# ---- finished, or of another kind ----


def test_a_finished_case_is_left_alone(
    inference: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = inference.run("out")
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    inference.run("out", "--resume")
    assert "is finished: nothing to resume" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_a_run_of_other_options_is_not_taken_up(
    inference: Inference, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        cut_off_after(patch, 3)
        with pytest.raises(CutOffError):
            inference.run("out")
    left = {p.name: p.read_bytes() for p in (inference.folder / "out").iterdir()}
    capsys.readouterr()
    for words, difference in (
        (("--consistency",), "consistency was false, is now true"),
        (("--windows", "clinical=-900:300"), "low was -1000.0, is now -900.0"),
        (("--slices", ":12", "--norm_scope", "slice"), "lung_statistics was true, is now false"),
        (("--precision", "bf16"), 'precision was "fp32", is now "bf16"'),
    ):
        inference.run("out", "--resume", *words, code=2)
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert difference in err
        assert "run without --resume to start anew" in err
    assert {p.name: p.read_bytes() for p in (inference.folder / "out").iterdir()} == left
    inference.run("out", "--consistency")  # a start anew needs no permission: nothing is finished
    assert not list((inference.folder / "out").glob("*.partial*"))


def test_another_input_is_not_taken_up(
    inference: Inference, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        cut_off_after(patch, 3)
        with pytest.raises(CutOffError):
            inference.run("out")
    array = soft_volume((26, 22, 12), seed=9)
    write_ct(inference.ct, array, np.diag([0.7, 0.7, 1.25, 1.0]))
    inference.run("out", "--resume", code=2)
    assert "input was " in capsys.readouterr().err


def test_a_result_of_other_options_is_not_taken_for_finished(
    inference: Inference, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = inference.run("out")
    inference.run("out", "--resume", "--consistency", code=2)
    err = capsys.readouterr().err
    assert "was made by another kind of run: consistency was false, is now true" in err
    # Nor is one whose replacement was begun.
    before = volumes(folder)
    with monkeypatch.context() as patch:
        cut_off_after(patch, 3)
        with pytest.raises(CutOffError):
            inference.run("out", "--overwrite", "--consistency")
    assert {name: volumes(folder)[name] for name in before} == before
    inference.run("out", "--resume", "--consistency")
    assert volumes(folder)["SR.nii.gz"] != before["SR.nii.gz"]
    assert volumes(folder) == volumes(inference.run("fresh", "--consistency"))


def test_a_run_in_its_own_process_gives_the_same_bytes(inference: Inference) -> None:
    """What the tests above rely on when they compare one with the other."""
    process = start(inference.words("other"))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert volumes(inference.folder / "other") == volumes(inference.run("here"))
