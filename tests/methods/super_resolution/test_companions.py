"""What stands beside a super-resolved volume: it follows the result, and never costs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from method_helpers import read_nifti, soft_volume, write_ct
from training_helpers import write_checkpoint

import medicaltest
import methods.super_resolution.companions
from methods.pages.result_page import PAGE
from util.errors import UserError, run_command_line


class Case:
    """A CT of four slices, 2x models of random weights, and the folder for the result."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        affine = np.diag([0.7, 0.7, 1.25, 1.0])
        self.ct = write_ct(folder / "ct.nii", soft_volume((26, 22, 4)), affine)
        self.models = [write_checkpoint(folder / "checkpoints", f"m{n}", seed=n) for n in (1, 2)]

    def run(self, *words: str, model: int = 0, code: int = 0) -> None:
        page = [] if "--page_mb" in words else ["--page_mb", "0"]
        fixed = [
            "--gpu_ids", "-1", "--backend", "torch", "--checkpoint", str(self.models[model]),
            "--input", str(self.ct), "--results_dir", str(self.out), "--region", "all",
            "--output_name", "SR.nii",
        ]  # fmt: skip
        assert run_command_line(medicaltest.main, [*fixed, *page, *words]) == code

    def names(self) -> set[str]:
        return {path.name for path in self.out.iterdir()}

    def exported(self, name: str) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(self.out / name)))

    def result(self) -> np.ndarray:
        return read_nifti(self.out / "SR.nii")[0]


RESULT = {"SR.nii", "clinical.nii", "preview.png", "run.json"}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_failing_export_costs_no_result_and_is_made_up_for(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise UserError("cannot write SR.nrrd: no space")

    with monkeypatch.context() as broken:
        broken.setattr(methods.super_resolution.companions, "export_volume", full)
        case.run("--output_format", "nrrd", code=2)
    said = capsys.readouterr().err
    assert f"no space ({case.out / 'SR.nii'} is complete: --resume writes the rest)" in said
    assert case.names() == RESULT | {"SR.itksnap"}
    computed = (case.out / "SR.nii").stat().st_mtime_ns
    case.run("--output_format", "nrrd", "--resume")
    assert "nothing to resume" in capsys.readouterr().out
    assert (case.out / "SR.nii").stat().st_mtime_ns == computed
    np.testing.assert_array_equal(case.exported("SR.nrrd"), case.result())


def test_exports_of_an_earlier_result_do_not_outlive_it(case: Case) -> None:
    case.run("--output_format", "nrrd")
    before = case.result()
    case.run("--output_format", "mha", "--overwrite", model=1)
    assert case.names() == RESULT | {"SR.itksnap", "SR.mha"}
    assert not np.array_equal(case.result(), before)
    np.testing.assert_array_equal(case.exported("SR.mha"), case.result())


def test_what_stands_in_the_place_of_a_series_is_refused_before_any_work(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.out.mkdir()
    (case.out / "SR_dicom").write_text("a file")
    case.run("--output_format", "dicom", "--overwrite", code=2)
    assert "SR_dicom" in capsys.readouterr().err
    assert case.names() == {"SR_dicom"}
    assert (case.out / "SR_dicom").read_text() == "a file"


def test_resume_makes_a_page_that_is_missing(case: Case) -> None:
    case.run()
    assert PAGE not in case.names()
    case.run("--resume", "--page_mb", "5")
    text = (case.out / PAGE).read_text(encoding="utf-8")
    record = json.loads((case.out / "run.json").read_text(encoding="utf-8"))
    assert record["weights"] in text
