"""smallpatchtest with a real generator: honesty, file types, and runs that are cut off."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_programs import start_program
from method_helpers import read_nifti, soft_volume, write_ct
from scipy import ndimage
from training_helpers import write_checkpoint

import medicaltest
from data.windows import CLINICAL_WINDOW
from data.writing.nifti_writer import NiftiSliceWriter
from data.writing.partial_file import PartialFile
from methods.super_resolution import method
from util.errors import UserError, run_command_line

PATIENCE = 120.0  # seconds; only a test that fails waits so long
SCALE = 2


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoints", "run")


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return lung_ct(tmp_path / "ct.nii.gz", 26)


def lung_ct(path: Path, edge: int) -> Path:
    """Twelve slices of `edge` columns with bone beyond the window; one shows no lung."""
    array = soft_volume((edge, edge - 4, 12))
    array[:, 3:5, 3:6] = 1500
    mask = np.zeros_like(array)
    mask[:, 4 : edge - 8, 5 : edge - 6] = 1
    mask[4] = 0
    return write_ct(path, array, np.diag([0.7, 0.7, 1.25, 1.0]), mask)


def words(checkpoint: Path, ct: Path, folder: Path, *more: str) -> list[str]:
    # OpenVINO takes a second to trace the network, longer than most of these runs.
    return [
        "--gpu_ids", "-1", "--backend", "torch", "--checkpoint", str(checkpoint),
        "--input", str(ct), "--results_dir", str(folder), "--page_mb", "0", *more,
    ]  # fmt: skip


def run(checkpoint: Path, ct: Path, folder: Path, *more: str) -> Path:
    assert run_command_line(medicaltest.main, words(checkpoint, ct, folder, *more)) == 0
    return folder


def start(arguments: list[str], log: Path) -> BaseProcess:
    # As many threads as here: with others the sums differ, and --resume says so.
    return start_program("medicaltest", arguments, log, torch.get_num_threads())


def until_slices(folder: Path, count: int, process: BaseProcess) -> None:
    """Wait until the journal of SR.nii.gz tells of `count` slices, or the process has ended."""
    journal = folder / "SR.nii.gz.partial.journal"
    deadline = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < deadline:
        try:
            if len(journal.read_bytes().splitlines()) >= 2 + count:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.001)


def fail_after(monkeypatch: pytest.MonkeyPatch, slices: int) -> None:
    """Let a run end by a fault once so many slices of the result are handed over."""
    append = NiftiSliceWriter.append

    def until(self: NiftiSliceWriter, values: np.ndarray) -> None:
        if self.path.name == "SR.nii.gz" and self.slices_written == slices:
            raise KeyError("a fault of the program")
        append(self, values)

    monkeypatch.setattr(NiftiSliceWriter, "append", until)


def volumes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nii*")}


# ---- honesty ----


@pytest.mark.parametrize("region", ["lung", "all"])
def test_consistency_makes_the_result_average_to_its_input(
    checkpoint: Path, ct: Path, tmp_path: Path, region: str
) -> None:
    plain = run(checkpoint, ct, tmp_path / "plain", "--region", region)
    true = run(checkpoint, ct, tmp_path / "true", "--region", region, "--consistency")
    array, _ = read_nifti(ct)
    inside = ~CLINICAL_WINDOW.outside(array)
    for folder, low, high in ((plain, 1.0, np.inf), (true, 0.0, 1.0)):
        enlarged, _ = read_nifti(folder / "SR.nii.gz")
        z, y, x = array.shape
        means = enlarged.reshape(z, y, SCALE, x, SCALE).mean(axis=(2, 4), dtype=np.float64)
        largest = np.abs(means - array)[inside].max()
        assert low <= largest < high
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        stated = record["consistency_error_hu"]
        assert stated["largest"] == pytest.approx(largest, abs=1e-3)
        assert stated["slices"] == z
        assert 0 < stated["mean"] < stated["largest"]


def test_uncertainty_is_a_volume_in_hu_that_is_zero_outside_the_lung(
    checkpoint: Path, ct: Path, tmp_path: Path
) -> None:
    folder = run(checkpoint, ct, tmp_path / "out", "--uncertainty")
    spread, image = read_nifti(folder / "uncertainty.nii.gz")
    enlarged, other = read_nifti(folder / "SR.nii.gz")
    assert spread.shape == enlarged.shape
    np.testing.assert_array_equal(image.affine, other.affine)
    lung, _ = read_nifti(ct.with_name("ct_mask.nii.gz"))
    fine = lung.repeat(SCALE, 1).repeat(SCALE, 2) != 0
    assert spread[~fine].max() == 0
    assert spread[fine].mean() > 1
    assert spread.min() == 0


TEXTURED = (
    "--norm", "none", "--skip", "cubic", "--texture_noise", "2", "--lambda_texture", "1",
    "--init_gain", "0.2",
)  # fmt: skip


def test_texture_is_a_dial_that_is_drawn_by_place(tmp_path: Path, ct: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoints", "run", *TEXTURED)
    found, words_of_trust = {}, []
    for share in ("0", "0.5", "1"):
        folder = run(checkpoint, ct, tmp_path / share, "--texture", share)
        found[share], _ = read_nifti(folder / "SR.nii.gz")
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert record["determined_by"].get("texture", 0) == float(share)
        record["trust"].pop("of_best_estimate", None)
        words_of_trust.append(record["trust"])
    # Of the best estimate, whatever is drawn beside it.
    assert words_of_trust[0] == words_of_trust[1] == words_of_trust[2]
    best = run(checkpoint, ct, tmp_path / "best")
    assert volumes(best) == volumes(tmp_path / "0")
    apart = [np.abs(found[share] - found["0"]).mean() for share in ("0.5", "1")]
    assert 0.1 < apart[0] < apart[1]
    # Slices that are left out change nothing in the others, nor does what is cut away of a slice.
    everywhere = run(checkpoint, ct, tmp_path / "all", "--texture", "1", "--region", "all")
    lung, _ = read_nifti(ct.with_name("ct_mask.nii.gz"))
    inside = ndimage.binary_erosion(lung != 0, np.ones((1, 3, 3)))  # the border is mixed
    fine = inside.repeat(SCALE, 1).repeat(SCALE, 2)
    whole, _ = read_nifti(everywhere / "SR.nii.gz")
    np.testing.assert_allclose(whole[fine], found["1"][fine], atol=1)


def test_samples_give_their_mean_and_spread(tmp_path: Path, ct: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoints", "run", *TEXTURED)
    folder = run(checkpoint, ct, tmp_path / "samples", "--samples", "3")
    spread, _ = read_nifti(folder / "uncertainty.nii.gz")
    best = run(checkpoint, ct, tmp_path / "best", "--uncertainty")
    assert spread.max() > 0
    assert set(volumes(best)) == set(volumes(folder))
    assert volumes(best)["SR.nii.gz"] != volumes(folder)["SR.nii.gz"]
    again = words(checkpoint, ct, folder, "--samples", "4", "--resume")
    assert run_command_line(medicaltest.main, again) == 2


@pytest.mark.parametrize("flag", ["--texture=0.5", "--samples=4"])
def test_a_model_without_texture_is_refused(
    checkpoint: Path, ct: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(medicaltest.main, words(checkpoint, ct, tmp_path / "out", flag)) == 2
    assert "no texture layers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_record_says_how_it_ran(checkpoint: Path, ct: Path, tmp_path: Path) -> None:
    folder = run(checkpoint, ct, tmp_path / "out", "--precision", "bf16")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert len(record["weights"]) == 64
    assert (record["backend"], record["precision"]) == ("torch", "bf16")
    assert (record["norm_scope"], record["norm_pixels"]) == ("lung", "lung")
    assert record["window"] == {"low": -1000.0, "high": 500.0}
    assert record["peak_memory_bytes"] > 0
    assert record["seconds"] > 0


# ---- file types and scopes ----


@pytest.mark.slow
def test_an_unpacked_result_holds_the_same_voxels(
    checkpoint: Path, ct: Path, tmp_path: Path
) -> None:
    packed = run(checkpoint, ct, tmp_path / "packed")
    plain = run(checkpoint, ct, tmp_path / "plain", "--output_name", "fine.nii")
    assert {p.name for p in plain.iterdir()} == {
        "fine.nii", "fine.itksnap", "clinical.nii", "preview.png", "run.json",
    }  # fmt: skip
    for first, second in (("SR.nii.gz", "fine.nii"), ("clinical.nii.gz", "clinical.nii")):
        np.testing.assert_array_equal(read_nifti(packed / first)[0], read_nifti(plain / second)[0])


def test_volume_statistics_differ_from_each_slices_own(
    checkpoint: Path, ct: Path, tmp_path: Path
) -> None:
    own, pooled, again = (
        read_nifti(run(checkpoint, ct, tmp_path / name, "--norm_scope", scope) / "SR.nii.gz")[0]
        for name, scope in (("own", "slice"), ("pooled", "volume"), ("again", "volume"))
    )
    assert np.abs(own.astype(int) - pooled).max() > 1
    np.testing.assert_array_equal(pooled, again)


# ---- runs that are cut off ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edge", "more"),
    [
        (96, ("--backend", "auto")),
        (64, ("--region", "all")),
        (96, ("--uncertainty", "--consistency", "--norm_scope", "volume")),
    ],
    ids=["plain", "grouped", "everything"],
)
def test_killed_runs_end_with_the_bytes_of_an_unbroken_one(
    checkpoint: Path, tmp_path: Path, edge: int, more: tuple[str, ...]
) -> None:
    """Slices of 96 pixels go through the network one by one, of 64 four at a time."""
    ct, moments = lung_ct(tmp_path / "ct.nii.gz", edge), random.Random(edge)
    unbroken = run(checkpoint, ct, tmp_path / "unbroken", *more)
    for slices in (0, 3, 8):
        arguments = words(checkpoint, ct, tmp_path / "broken", "--resume", *more)
        process = start(arguments, tmp_path / "log.txt")
        until_slices(tmp_path / "broken", slices, process)
        time.sleep(moments.uniform(0.0, 0.05))
        process.kill()
        process.join()
    broken = run(checkpoint, ct, tmp_path / "broken", "--resume", *more)
    assert {p.name for p in broken.iterdir()} == {p.name for p in unbroken.iterdir()}
    assert volumes(broken) == volumes(unbroken)
    record = json.loads((broken / "run.json").read_text(encoding="utf-8"))
    assert record["slices_resumed"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_in_order_and_says_how_to_go_on(
    checkpoint: Path, ct: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "out"
    # Eight orientations a slice, so that the signal comes before the end.
    log = tmp_path / "log.txt"
    process = start(words(checkpoint, ct, folder, "--uncertainty"), log)
    until_slices(folder, 1, process)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(PATIENCE)
    err = log.read_text(encoding="utf-8")
    assert process.exitcode == 130, err
    assert "--resume goes on" in err
    assert "Traceback" not in err
    assert (folder / "SR.nii.gz.partial").exists()
    assert not (folder / "SR.nii.gz").exists()
    run(checkpoint, ct, folder, "--uncertainty", "--resume")
    assert (folder / "SR.nii.gz").exists()
    assert not list(folder.glob("*.partial*"))


@pytest.mark.slow
def test_another_option_is_refused_and_a_finished_case_is_left_alone(
    checkpoint: Path, ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    process = start(words(checkpoint, ct, folder, "--uncertainty"), tmp_path / "log.txt")
    until_slices(folder, 1, process)
    process.kill()
    process.join()
    arguments = words(checkpoint, ct, folder, "--uncertainty", "--resume", "--consistency")
    assert run_command_line(medicaltest.main, arguments) == 2
    err = capsys.readouterr().err
    assert "consistency was false, is now true" in err
    assert "run without --resume to start anew" in err
    run(checkpoint, ct, folder, "--uncertainty", "--resume")
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    run(checkpoint, ct, folder, "--uncertainty", "--resume")
    assert "is finished: nothing to resume" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


@pytest.mark.slow
def test_a_result_of_other_options_is_not_taken_for_finished(
    checkpoint: Path, ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(checkpoint, ct, tmp_path / "out")
    arguments = words(checkpoint, ct, folder, "--resume", "--consistency")
    assert run_command_line(medicaltest.main, arguments) == 2
    err = capsys.readouterr().err
    assert "was made by another kind of run: consistency was false, is now true" in err
    for damaged in ("", "[]", '{"method": "smallpatchtest"}'):
        (folder / "run.json").write_text(damaged, encoding="utf-8")
        assert run_command_line(medicaltest.main, arguments) == 2
        err = capsys.readouterr().err
        assert "run.json does not say which (an older version wrote it, or it is damaged)" in err


@pytest.mark.slow
def test_a_replacement_that_was_cut_off_is_not_taken_for_finished(
    checkpoint: Path, ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old result stands whole beside its replacement's partial files until that is whole."""
    folder = run(checkpoint, ct, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        fail_after(patch, 3)
        with pytest.raises(KeyError, match="a fault"):
            run(checkpoint, ct, folder, "--overwrite", "--consistency")
    assert {name: (folder / name).read_bytes() for name in before} == before
    run(checkpoint, ct, folder, "--resume", "--consistency")
    assert not list(folder.glob("*.partial*"))
    fresh = run(checkpoint, ct, tmp_path / "fresh", "--consistency")
    assert volumes(folder) == volumes(fresh)
    assert volumes(folder)["SR.nii.gz"] != before["SR.nii.gz"]


@pytest.mark.parametrize("more", [("--texture", "1"), ("--samples", "3")])
def test_a_resumed_run_draws_what_an_unbroken_one_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """The picture too, whose slice was written before the run was cut off."""
    ct = lung_ct(tmp_path / "ct.nii.gz", 130)  # slices that share no call
    checkpoint = write_checkpoint(tmp_path / "checkpoints", "run", *TEXTURED)
    unbroken = run(checkpoint, ct, tmp_path / "unbroken", *more)
    with monkeypatch.context() as patch:
        fail_after(patch, 10)
        with pytest.raises(KeyError, match="a fault"):
            run(checkpoint, ct, tmp_path / "out", *more)
    folder = run(checkpoint, ct, tmp_path / "out", "--resume", *more)
    assert volumes(folder) == volumes(unbroken)
    assert (folder / "preview.png").read_bytes() == (unbroken / "preview.png").read_bytes()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["slices_resumed"] > 5
    assert record["trust"]["of_best_estimate"]
    assert record["determined_by"]["numpy"] == np.__version__


@pytest.mark.slow
@pytest.mark.parametrize("slices", [1, 4, 6])
@pytest.mark.parametrize("more", [(), ("--uncertainty", "--norm_scope", "volume")])
def test_slices_that_shared_a_call_share_it_again(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slices: int,
    more: tuple[str, ...],
) -> None:
    """Four slices of this size go through the network at once; the last call has two."""
    ct = write_ct(tmp_path / "ct.nii", soft_volume((64, 64, 10), seed=3), np.eye(4))
    options = ("--region", "all", *more)
    unbroken = run(checkpoint, ct, tmp_path / "unbroken", *options)
    with monkeypatch.context() as patch:
        fail_after(patch, slices)
        with pytest.raises(KeyError, match="a fault"):
            run(checkpoint, ct, tmp_path / "broken", *options)
    broken = run(checkpoint, ct, tmp_path / "broken", *options, "--resume")
    assert volumes(broken) == volumes(unbroken)
    record = json.loads((broken / "run.json").read_text(encoding="utf-8"))
    # Packed on threads of their own, slices may be lost at the end, but never a call's first ones.
    assert record["slices_resumed"] in {0, slices - slices % 4}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "replacing"), [(0, False), (1, True), (2, False), (3, False), (3, True)]
)
def test_cut_off_between_the_last_slice_and_the_record(
    checkpoint: Path,
    ct: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: int,
    replacing: bool,
) -> None:
    """All slices of all files are there, `named` of the three have their names, run.json none."""
    unbroken = run(checkpoint, ct, tmp_path / "unbroken", "--uncertainty")
    folder, left = tmp_path / "out", named
    if replacing:
        run(checkpoint, ct, folder, "--uncertainty", "--consistency")
    finish = PartialFile.finish

    def refusing(self: PartialFile) -> None:
        nonlocal left
        if left == 0:
            raise KeyError("a fault of the program")
        left -= 1
        finish(self)

    def failing(*_: object) -> None:
        raise KeyError("a fault of the program")

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "finish", refusing)
        patch.setattr(method, "record_case", failing)
        with pytest.raises(KeyError, match="a fault"):
            run(checkpoint, ct, folder, "--uncertainty", "--overwrite")
    assert len(list(folder.glob("*.partial"))) == 3 - named
    run(checkpoint, ct, folder, "--uncertainty", "--resume")
    assert {p.name for p in folder.iterdir()} == {p.name for p in unbroken.iterdir()}
    assert volumes(folder) == volumes(unbroken)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["slices_resumed"] == 12  # nothing was computed twice


def test_cut_off_after_the_record(
    checkpoint: Path, ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(method, "forget_journals", lambda *_: None)
        run(checkpoint, ct, folder)
    assert len(list(folder.glob("*.journal"))) == 2
    before = (folder / "run.json").read_bytes()
    run(checkpoint, ct, folder, "--resume")
    assert (folder / "run.json").read_bytes() == before
    assert not list(folder.glob("*.journal"))


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["run.json", "preview.png", "clinical.nii.gz"])
def test_what_is_missing_beside_a_result_is_made(
    checkpoint: Path, ct: Path, tmp_path: Path, missing: str
) -> None:
    folder = run(checkpoint, ct, tmp_path / "out")
    before = volumes(folder)
    (folder / missing).unlink()
    run(checkpoint, ct, folder, "--resume")
    assert (folder / missing).stat().st_size > 0
    assert volumes(folder) == before


@pytest.mark.slow
def test_a_full_disk_is_one_line(
    checkpoint: Path, ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = PartialFile.write

    def full(self: PartialFile, piece: object) -> None:
        if self.slices >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(self, piece)  # type: ignore[arg-type]

    folder = tmp_path / "out"
    monkeypatch.setattr(PartialFile, "write", full)
    options, _ = medicaltest.TestOptions().parse(words(checkpoint, ct, folder))
    from methods.super_resolution.method import super_resolution

    with pytest.raises(UserError, match=r"cannot be written .*No space left on device"):
        super_resolution(options)
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{name}.nii.gz.partial{end}" for name in ("SR", "clinical") for end in ("", ".journal")
    ]
    monkeypatch.setattr(PartialFile, "write", written)
    run(checkpoint, ct, folder, "--resume")
