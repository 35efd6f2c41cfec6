"""The phantom's folder: written once, safely, and completed after an interruption."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from lock_helpers import another_owner

from data.formats.readers import read_volume
from data.phantom import __main__ as phantom
from data.phantom import training_set
from data.phantom.anatomy.disease import DISEASES
from data.phantom.anatomy.patient import VERSION
from data.phantom.pair import PairPlan, write_pair
from data.phantom.render import render_clinical
from data.phantom.training_set import (
    PhantomPaths,
    PhantomPlan,
    default_plan,
    generate_phantom,
    phantom_version,
    write_phantom,
)
from util.errors import UserError, run_command_line

SMALL = PhantomPlan(8, (20, 16, 2), (40, 32, 8))
NAMES = [
    "clinical/phantom_clinical_seed1.nii",
    "clinical/phantom_clinical_seed1_mask.nii.gz",
    "clinical/phantom_clinical_seed2.nii",
    "clinical/phantom_clinical_seed2_mask.nii.gz",
    "clinical_test/phantom_clinical_seed21.nii",
    "clinical_test/phantom_clinical_seed21_mask.nii.gz",
    "micro/phantom_micro_seed11.nii",
    "micro/phantom_micro_seed12.nii",
    "micro_test/phantom_micro_seed31.nii",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> PhantomPaths:
    return write_phantom(tmp_path_factory.mktemp("phantom"), SMALL, processes=1)


def files_in(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(found)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        name: ((folder / name).stat().st_mtime_ns, (folder / name).read_bytes())
        for name in files_in(folder)
    }


def copy_of(written: PhantomPaths, folder: Path) -> Path:
    for name in files_in(written.folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((written.folder / name).read_bytes())
    return folder


@pytest.mark.slow
def test_of_two_at_once_the_second_finds_what_the_first_has_made(
    written: PhantomPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with another_owner(tmp_path) as owner:

        def finish() -> None:
            copy_of(written, tmp_path)
            owner.kill()

        timer = threading.Timer(0.3, finish)
        timer.start()
        made: list[str] = []
        write_phantom(tmp_path, SMALL, lambda done, count, name: made.append(name), processes=1)
    assert made == []
    assert f"waiting for process {owner.pid} on " in capsys.readouterr().err
    assert files_in(tmp_path) == files_in(written.folder)


@pytest.mark.slow
def test_the_folder_holds_what_is_promised(written: PhantomPaths) -> None:
    assert files_in(written.folder) == sorted([*NAMES, "complete.json"])
    assert written.clinical == written.folder / "clinical"
    assert written.micro_test == written.folder / "micro_test"
    told = json.loads((written.folder / "complete.json").read_text())
    assert told["parameters"]["scale"] == 8
    assert sorted(told["files"]) == NAMES


def test_files_are_nifti_with_geometry_and_plain_voxels(written: PhantomPaths) -> None:
    micro = nib.Nifti1Image.from_filename(written.micro / "phantom_micro_seed11.nii")
    assert micro.get_data_dtype() == np.uint16
    assert micro.shape == (40, 32, 8)
    stored = (written.micro / "phantom_micro_seed11.nii").read_bytes()
    assert np.frombuffer(stored, "<f4", 2, offset=112).tolist() == [1, 0]  # slope, intercept
    assert isinstance(np.asanyarray(micro.dataobj), np.memmap)
    clinical = nib.Nifti1Image.from_filename(written.clinical / "phantom_clinical_seed1.nii")
    expected = render_clinical(1, (20, 16, 2), disease=DISEASES["solid_nodule"])
    np.testing.assert_array_equal(np.asarray(clinical.dataobj).T, expected.array)
    np.testing.assert_allclose(clinical.affine, expected.affine, atol=1e-5)
    np.testing.assert_allclose(clinical.get_qform(), clinical.get_sform(), atol=1e-5)
    assert (clinical.header["sform_code"], clinical.header["qform_code"]) == (1, 1)
    mask = nib.Nifti1Image.from_filename(written.clinical / "phantom_clinical_seed1_mask.nii.gz")
    np.testing.assert_allclose(mask.affine, clinical.affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}


def test_a_complete_folder_is_not_touched(written: PhantomPaths) -> None:
    before = state(written.folder)
    calls: list[str] = []
    again = write_phantom(written.folder, SMALL, lambda done, of, name: calls.append(name))
    assert again == written
    assert state(written.folder) == before
    assert calls == []


def test_an_interrupted_folder_is_completed(
    written: PhantomPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(written, tmp_path)
    (folder / "complete.json").unlink()
    (folder / NAMES[1]).unlink()  # a mask is missing
    broken = folder / NAMES[6]
    broken.write_bytes(broken.read_bytes()[:-100])  # a volume is cut short
    (folder / "micro" / "phantom_micro_seed12.nii.partial").write_bytes(b"torn")
    before = state(folder)
    calls: list[tuple[int, int, str]] = []
    write_phantom(folder, SMALL, lambda *call: calls.append(call), processes=1)
    assert calls == [
        (5, 6, "phantom_clinical_seed1.nii"),
        (6, 6, "phantom_micro_seed11.nii"),
    ]
    err = capsys.readouterr().err  # a bar moves inside each volume
    assert "phantom: phantom_clinical_seed1: 100%" in err
    assert "phantom: phantom_micro_seed11: 100%" in err
    after = state(folder)
    for name in NAMES:
        assert after[name][1] == (written.folder / name).read_bytes()
    assert after[NAMES[2]][0] == before[NAMES[2]][0]


def test_a_complete_folder_that_lost_a_file_is_completed(
    written: PhantomPaths, tmp_path: Path
) -> None:
    folder = copy_of(written, tmp_path)
    (folder / NAMES[8]).unlink()
    write_phantom(folder, SMALL, processes=1)
    assert (folder / NAMES[8]).read_bytes() == (written.folder / NAMES[8]).read_bytes()


@pytest.mark.slow
def test_stopping_leaves_whole_files_only(
    written: PhantomPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_set, "render_micro", stop)
        with pytest.raises(KeyboardInterrupt):
            write_phantom(tmp_path, SMALL, processes=1)
    assert files_in(tmp_path) == NAMES[:6]
    write_phantom(tmp_path, SMALL, processes=1)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (written.folder / name).read_bytes()


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(written: PhantomPaths, tmp_path: Path) -> None:
    calls: list[int] = []
    write_phantom(tmp_path, SMALL, lambda done, of, name: calls.append(done), processes=2)
    assert calls == [1, 2, 3, 4, 5, 6]
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (written.folder / name).read_bytes()


def test_other_parameters_are_refused(written: PhantomPaths) -> None:
    other = PhantomPlan(4, SMALL.clinical_size, SMALL.micro_size)
    message = "holds a phantom made with other parameters .*asked: scale 4.* another folder"
    with pytest.raises(UserError, match=message):
        write_phantom(written.folder, other)


def test_a_folder_of_version_2_is_refused_by_name(written: PhantomPaths, tmp_path: Path) -> None:
    told = json.loads((written.folder / "complete.json").read_text())
    told["parameters"]["version"] = 2
    (tmp_path / "complete.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"of version 2, this is version 3.* remove"):
        write_phantom(tmp_path, SMALL)


def test_parts_of_another_phantom_are_replaced(written: PhantomPaths, tmp_path: Path) -> None:
    folder = copy_of(written, tmp_path)
    (folder / "complete.json").unlink()
    larger = PhantomPlan(8, (22, 16, 2), SMALL.micro_size)
    calls: list[str] = []
    write_phantom(folder, larger, lambda done, of, name: calls.append(name), processes=1)
    assert len(calls) == 3  # the micro volumes fit and stay


@pytest.mark.parametrize("content", [b"my own notes", None])
def test_foreign_files_are_not_overwritten(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clinical" / "phantom_clinical_seed1.nii"
    path.parent.mkdir()
    if content is None:
        nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_filename(path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"phantom_clinical_seed1\.nii is not .*another folder"):
        write_phantom(tmp_path, SMALL, processes=1)
    assert path.read_bytes() == before


def test_default_plans_keep_the_ratio_and_the_volume_of_files() -> None:
    for scale in (2, 4, 8, 16):
        plan = default_plan(scale)
        clinical, micro = plan.scanners
        assert clinical.pixel / micro.voxel == scale
        assert plan.micro_size[0] * micro.voxel == 16
        assert micro.spacing == (micro.voxel,) * 3
        voxels = 3 * np.prod(plan.clinical_size) + 3 * np.prod(plan.micro_size)
        assert 2 * voxels < (250e6 if scale < 16 else 900e6)
    assert default_plan(8).micro_size == (256, 256, 256)


def test_another_seed_gives_other_patients(tmp_path: Path) -> None:
    seeds = {job.seed for job in default_plan(8).jobs(tmp_path)}
    others = {job.seed for job in default_plan(8, seed=1).jobs(tmp_path)}
    assert seeds == {1, 2, 11, 12, 21, 31}
    assert not seeds & others


def test_wrong_scale_or_seed_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="phantom scale 3: expected one of 2, 4, 8, 16"):
        generate_phantom(tmp_path, 3)
    with pytest.raises(UserError, match="phantom seed -1: expected 0 or more"):
        generate_phantom(tmp_path, 8, seed=-1)
    assert files_in(tmp_path) == []


@pytest.mark.slow
def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["--scale", "5"], "--scale 5: expected one of 2, 4, 8, 16"),
        (["--seed", "-1"], "--seed -1: expected 0 or more"),
        (["--pixel", "0"], "--pixel 0: expected 0.2 to 5 mm, as clinical scanners have"),
        (["--thickness", "9"], "--thickness 9: expected 0.2 to 5 mm, as clinical scanners have"),
        (["--training", "--pixel", "0.7"], "--training writes voxels of 0.5 mm: leave --pixel out"),
        (["--processes", "0"], "--processes 0: expected 1 or more"),
        (["--size", "8", "0", "2"], "phantom size (64, 0, 16): expected three positive numbers of "
         f"voxels, at most {2**27} voxels in all"),
        (["--training", "--seed", "4"],
         "--training --seed 4 would write patients of the benchmark: give another"),
        (["--training", "--disease", "fibrosis"],
         "--training writes patients of several kinds: leave --disease out"),
    ):  # fmt: skip
        assert run_command_line(phantom.main, ["--out", str(tmp_path / "p"), *words]) == 2
        assert capsys.readouterr().err == f"error: {said}\n"
    assert files_in(tmp_path) == []
    monkeypatch.setattr(training_set, "default_plan", lambda scale, seed: SMALL)
    words = ["--out", str(tmp_path / "p"), "--training", "--processes", "1"]
    assert run_command_line(phantom.main, words) == 0
    shown = capsys.readouterr()
    assert "6/6" in shown.out
    assert files_in(tmp_path / "p") == sorted([*NAMES, "complete.json"])


def test_a_volume_tells_the_version_that_made_it(written: PhantomPaths, tmp_path: Path) -> None:
    volume = next(written.micro.glob("*.nii"))
    assert phantom_version(volume) == VERSION
    patient = write_pair(tmp_path / "patient", PairPlan(5, scale=2, size=(16, 14, 2)))
    assert phantom_version(patient / "micro.nii") == VERSION
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "complete.json").write_text("[1]")
    assert phantom_version(tmp_path / "other" / "ct" / "a.nii") is None


def test_a_patient_is_scanned_with_the_pixels_that_were_asked_for(tmp_path: Path) -> None:
    words = ["--pixel", "0.8", "--thickness", "1", "--size", "16", "14", "2", "--scale", "2"]
    phantom.main(["--out", str(tmp_path), "--processes", "1", *words])
    assert read_volume(tmp_path / "clinical.nii").spacing == pytest.approx((0.8, 0.8, 1.0))
    assert read_volume(tmp_path / "truth.nii").spacing == pytest.approx((0.4, 0.4, 1.0))
