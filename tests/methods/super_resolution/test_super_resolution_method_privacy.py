"""Nothing that a run leaves tells who the patient is, but for the derived series."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_helpers import write_ct
from method_helpers import IdentityResolver, quick_picture, stub_model
from option_helpers import evaluation_options
from pydicom.dataset import Dataset

import methods.inputs
import methods.super_resolution.method
from methods.super_resolution.method import super_resolution
from util.privacy import hide, keep_all

SECRETS = ("Doe", "Jane", "A-4711", "19700131", "Mary")
TITLES: list[str] = []


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SR_CYCLEGAN_CACHE", str(tmp_path / "cache"))
    stub = IdentityResolver()
    monkeypatch.setattr(methods.inputs, "load_model", lambda o: stub_model(stub, o))

    def picture(*words: object) -> None:
        TITLES.append(str(words[-1]))
        quick_picture(*words)  # type: ignore[arg-type]

    TITLES.clear()
    monkeypatch.setattr(methods.super_resolution.method, "comparison_picture", picture)


def named(header: Dataset, index: int) -> None:
    header.PatientName, header.PatientID = "Doe^Jane", "A-4711"
    header.PatientBirthDate, header.InstitutionName = "19700131", "St. Mary"


def run(tmp_path: Path, *words: str, others: tuple[str, ...] = ()) -> Path:
    values = np.random.default_rng(0).integers(-1000, 400, (2, 12, 14)).astype(np.int16)
    series = tmp_path / "DOE_JANE" / "A-4711 19700131"
    write_ct(series, values, named)
    results = tmp_path / "results"
    super_resolution(
        evaluation_options(
            *("--input", str(series), *others, "--results_dir", str(results)),
            *("--region", "all", *words),
        )
    )
    return results


def written(folder: Path) -> str:
    """All bytes of a folder's files as text, and what stands in pictures."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(contents).decode("latin-1") + "\n".join(TITLES)


def test_records_pages_and_pictures_name_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = written(run(tmp_path, "--page_mb", "1"))
    assert "[patient]" in text
    for secret in SECRETS:
        # As a word: the viewer's program may have it within another.
        alone = re.search(rf"(?<![a-z0-9]){secret.lower()}(?![a-z0-9])", text.lower())
        assert alone is None, secret
    assert "identifies the patient" in capsys.readouterr().err


def test_several_patients_do_not_name_each_other(tmp_path: Path) -> None:
    values = np.zeros((2, 12, 14), np.int16)
    values[:, 4:9] = -800
    other = tmp_path / "ROE RICHARD"

    def edit(header: Dataset, index: int) -> None:
        header.PatientName, header.PatientID = "Roe^Richard", "B-815"
        header.OtherPatientIDs = ["Z-123", "Z-456"]

    write_ct(other, values, edit)
    results = run(tmp_path, "--page_mb", "1", others=(str(other),))
    records = [path.read_text(encoding="utf-8").lower() for path in results.glob("*/run.json")]
    pages = [path.read_text(encoding="utf-8").lower() for path in results.glob("*/index.html")]
    assert (len(records), len(pages)) == (2, 2)
    for secret in (*SECRETS, "Roe", "Richard"):
        for text in (*records, *pages):
            assert re.search(rf"(?<![a-z0-9]){secret.lower()}(?![a-z0-9])", text) is None, secret


def test_names_of_files_stay_what_they_are(tmp_path: Path) -> None:
    hide(["clinical", "SR"])
    record = json.loads((run(tmp_path) / "run.json").read_text(encoding="utf-8"))
    names = [Path(one).name for one in record["outputs"]]
    assert {"SR.nii.gz", "clinical.nii.gz"} <= set(names)


def test_it_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_all(True)  # as the program does for --keep_identity
    text = written(run(tmp_path, "--page_mb", "1", "--keep_identity"))
    assert "DOE_JANE" in text
    assert "[patient]" not in text
    assert "identifies" not in capsys.readouterr().err


def test_the_derived_series_keeps_it_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path, "--output_format", "dicom")
    header = pydicom.dcmread(next((folder / "SR_dicom").iterdir()))
    assert header.PatientName == "Doe^Jane"
    assert "SR_dicom has the patient's name, ID and study of" in capsys.readouterr().out
