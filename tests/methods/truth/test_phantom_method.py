"""phantomtest from the command line to its files."""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Page
from method_helpers import save_generator
from option_helpers import evaluation_options
from phantom_helpers import small_case

import methods.truth.phantom_method
from data.phantom.anatomy.disease import DISEASES
from data.phantom.anatomy.patient import VERSION
from data.phantom.pair import PairPlan, write_pair
from medicaltest import main
from methods.truth.models import load_models, made_consistent
from methods.truth.opponents import CONTROL, INTERPOLATIONS, Method
from methods.truth.report import output_names
from methods.truth.scores import MEASURES
from models.networks import SRGenerator
from util.errors import run_command_line
from util.images.resampling import area_average

LINEAR = Method(CONTROL, "control", INTERPOLATIONS[2].enlarge)
BASELINES = [*(method.name for method in INTERPOLATIONS), CONTROL]
OUTPUTS = output_names("phantom", scanners=False)


@pytest.fixture(autouse=True)
def no_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their patients would have to be made."""
    monkeypatch.setattr(
        methods.truth.phantom_method, "linear_methods", lambda template, known: [LINEAR]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients at 2x and two models."""
    root = tmp_path_factory.mktemp("benchmark")
    for seed, name in ((7, "healthy"), (8, "solid_nodule")):
        plan = PairPlan(seed, DISEASES[name], scale=2, size=(16, 14, 2))
        write_pair(root / "patients" / f"seed{seed}", plan)
    for name, times in (("first", 1), ("second", 1), ("other", 2)):
        generator = SRGenerator(times, 4, 1, "none", "cubic")
        save_generator(root / name / "latest.pt", generator)
    return root


def run(folder: Path, out: Path, *words: str) -> int:
    patients = [str(path) for path in sorted((folder / "patients").iterdir())]
    command = ["--method", "phantomtest", "--gpu_ids", "-1", "--backend", "torch"]
    page = [] if "--page_mb" in words else ["--page_mb", "0"]
    command += ["--input", *patients, "--results_dir", str(out), *page, *words]
    return run_command_line(main, command)


@pytest.mark.slow
def test_several_models_stand_in_one_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [str(folder / "first" / "latest.pt"), f"ours={folder / 'second' / 'latest.pt'}"]
    assert run(folder, tmp_path, "--checkpoints", *models, "--consistency") == 0
    expected = [*BASELINES, "first", "first, consistent", "ours", "ours, consistent"]
    told = json.loads((tmp_path / "phantom_scores.json").read_text())
    assert list(told["all"]) == expected
    assert set(told["by_disease"]) == {"healthy", "solid_nodule"}
    for row in told["all"].values():
        assert set(row) == set(MEASURES)
        assert row["psnr"]["low"] is None or row["psnr"]["low"] == "nan"  # two prove nothing
    assert told["all"]["ours, consistent"]["consistency"]["mean"] < 1
    assert told["by_disease"]["healthy"]["cubic"]["nodule_volume"]["mean"] in ("nan", None)
    assert told["methods"]["cubic"] == "baseline"
    assert told["phantom_version"] == VERSION
    assert told["patients"] == ["seed7", "seed8"]
    assert told["methods"][CONTROL] == "control"
    assert set(told["minus_best_baseline"]) == {
        "first",
        "first, consistent",
        "ours",
        "ours, consistent",
    }
    gain = told["minus_best_baseline"]["ours"]["psnr"]
    best = max(told["all"][one.name]["psnr"]["mean"] for one in INTERPOLATIONS)
    assert gain["mean"] == pytest.approx(told["all"]["ours"]["psnr"]["mean"] - best)
    shown = capsys.readouterr().out
    assert "2 patients; mean with Student's 95 % interval over patients" in shown
    assert "2 patients: no intervals, and nothing is proven" in shown
    assert re.search(r"^\| ours, consistent \| [\d.]+ \|", shown, re.M)
    assert re.search(r"^ours minus the best baseline, patient by patient: PSNR [+-]", shown, re.M)
    assert "ours was trained on no version that its weights tell of the phantom" in shown


def test_files_hold_every_patient_slice_and_region(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path, "--checkpoint", str(folder / "first" / "latest.pt")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*OUTPUTS, "phantom_run.json"}
    with (tmp_path / "phantom_patients.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["patient"], row["method"]) for row in rows] == [
        (patient, method) for patient in ("seed7", "seed8") for method in [*BASELINES, "SR"]
    ]
    with (tmp_path / "phantom_slices.csv").open(newline="") as stream:
        slices = list(csv.DictReader(stream))
    assert {row["region"] for row in slices} >= {"lung", "parenchyma", "nodule"}
    assert {row["slice"] for row in slices} == {"0", "1"}
    mean = np.mean([float(row["psnr"]) for row in rows if row["method"] == "cubic"])
    told = json.loads((tmp_path / "phantom_scores.json").read_text())
    assert told["all"]["cubic"]["psnr"]["mean"] == pytest.approx(mean)
    with (tmp_path / "phantom_resolution.csv").open(newline="") as stream:
        curve = [row for row in csv.DictReader(stream) if row["method"] == "cubic"]
    assert all(-1 <= float(row["correlation"]) <= 1.0001 for row in curve)
    assert len({row["cycles_per_mm"] for row in curve}) == 14  # of 28 rows
    record = json.loads((tmp_path / "phantom_run.json").read_text())
    assert record["models"]["SR"]["weights"]
    assert set(record["seconds"]) == {*BASELINES, "SR"}


def test_patients_have_pages_of_their_own(folder: Path, tmp_path: Path, browser: Page) -> None:
    model = ("--checkpoint", str(folder / "first" / "latest.pt"))
    assert run(folder, tmp_path, *model, "--page_mb", "20") == 0
    index = (tmp_path / "index.html").read_text()
    for patient in ("seed7", "seed8"):
        assert f'href="patients/{patient}.html"' in index
    browser.open(tmp_path / "patients" / "seed8.html")
    names = browser.run("return [...viewer.panes[0].choice.options].map((one) => one.text)")
    assert names == ["clinical CT", *BASELINES, "SR", "truth"]
    overlays = browser.run("return [...document.querySelectorAll('[data-overlay]')].length")
    assert overlays == 2  # the difference, and the nodule that this patient has
    assert browser.errors() == []


def test_the_page_holds_its_pictures_itself(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path, "--checkpoint", str(folder / "first" / "latest.pt")) == 0
    page = (tmp_path / "index.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 3  # the figure and two patients
    assert all(base64.b64decode(one).startswith(b"\x89PNG") for one in pictures)
    assert "seed8, solid_nodule" in page
    assert "PSNR in the nodule, dB (higher is better; 1 of 2 patients)" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_path_with_a_sign_in_it_is_no_label(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "lr=1e-4" / "latest.pt"
    weights.parent.mkdir()
    weights.write_bytes((folder / "first" / "latest.pt").read_bytes())
    options = evaluation_options(
        "--method", "phantomtest", "--gpu_ids", "-1", "--checkpoints", str(weights), f"b={weights}"
    )
    assert list(load_models(options)) == ["lr=1e-4", "b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("first", "other"), r"enlarge differently \(first 2x, other 4x\)"),
        (("other",), "has a truth 2 times as fine, the model enlarges 4 times"),
        (("first", "first"), "there is a first already: give LABEL=FILE with another"),
        (("cubic=first",), "there is a cubic already"),
        (("truth=first",), "there is a truth already"),
        (("clinical CT=first",), "there is a clinical CT already"),
        (("nodule=first",), "there is a nodule already"),
        (("first", "first, consistent=second"), "there is a first, consistent already"),
        (("first, consistent=first", "first=second"), "there is a first, consistent already"),
        (("first", "difference of first=second"), "there is a difference of first already"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    paths = [
        f"{label}{mark}{folder / name / 'latest.pt'}"
        for label, mark, name in (word.rpartition("=") for word in words)
    ]
    assert run(folder, tmp_path, "--checkpoints", *paths) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "index.html").exists()


def test_results_are_kept_and_other_folders_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "phantom_scores.json").write_text("mine")
    model = ("--checkpoint", str(folder / "first" / "latest.pt"))
    assert run(folder, tmp_path, *model) == 2
    assert "exists already: --overwrite replaces it" in capsys.readouterr().err
    command = ["--method", "phantomtest", "--gpu_ids", "-1", "--input", str(tmp_path)]
    assert run_command_line(main, [*command, *model, "--results_dir", str(tmp_path / "r")]) == 2
    assert "holds no phantom patient" in capsys.readouterr().err


def test_without_input_the_fixed_patients_are_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def patients(
        place: Path, template: PairPlan, patient_set: str, count: int, *rest: object
    ) -> list[Path]:
        asked.append((place, template.scale, patient_set, count))
        return [folder / "patients" / "seed7"]

    monkeypatch.setattr(methods.truth.phantom_method, "fixed_patients", patients)
    command = ["--method", "phantomtest", "--gpu_ids", "-1", "--patients", "4", "--page_mb", "0"]
    command += ["--checkpoint", str(folder / "first" / "latest.pt"), "--overwrite"]
    command += ["--results_dir", str(tmp_path)]
    assert run_command_line(main, command) == 0
    assert run_command_line(main, [*command, "--patient_set", "validation"]) == 0
    place = Path("datasets/phantom/benchmark_x2")
    assert asked == [(place, 2, "test", 4), (place, 2, "validation", 4)]


def test_scanners_are_a_table_a_picture_and_a_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pixels = folder / "patients" / "seed8"
    monkeypatch.setattr(methods.truth.phantom_method, "fixed_patients", lambda *rest: [pixels])
    model = ("--checkpoint", str(folder / "first" / "latest.pt"))
    assert run(folder, tmp_path, *model, "--scanners") == 0
    names = output_names("phantom", scanners=True)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "phantom_run.json"}
    with (tmp_path / "phantom_scanners.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    scanners = dict.fromkeys(row["scanner"] for row in rows)
    assert len(scanners) == 12 + 8 + 4
    assert {"0 px, 0 HU", "2.8 px, 60 HU", "1.2 px, 25 HU, streaks noise"} <= scanners.keys()
    assert "pixels of 0.9 mm" in scanners
    assert {row["method"] for row in rows} == {*(one.name for one in INTERPOLATIONS), "SR"}
    told = json.loads((tmp_path / "phantom_scores.json").read_text())["scanners"]
    assert set(told["minus_best_baseline"]["SR"]) == set(scanners)
    line = "SR over the best baseline on 24 scanners: mean "
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "index.html").read_text()


def test_a_result_made_consistent_averages_to_its_input() -> None:
    case = small_case()
    changed = made_consistent(case.truth + 40, case)
    for image, low in zip(changed, case.clinical, strict=True):
        np.testing.assert_allclose(area_average(image, 2), low, atol=0.05)


def test_baselines_are_what_they_are_called() -> None:
    case = small_case()
    found = {method.name: method.enlarge(case) for method in INTERPOLATIONS}
    assert all(volume.shape == case.truth.shape for volume in found.values())
    np.testing.assert_array_equal(found["nearest"][:, ::2, ::2], case.clinical)
    sharper = found["cubic, unsharp mask"]
    assert sharper.std() > 1.05 * found["cubic"].std()
    assert sharper.mean() == pytest.approx(found["cubic"].mean(), rel=0.02)
