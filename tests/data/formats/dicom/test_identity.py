"""Words that identify a patient, in the ways in which paths have them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from dicom_helpers import ct_slice

from data.formats.dicom.identity import identity_of, identity_words
from util.privacy import REMOVED, cleared, hide


def test_names_ids_and_dates_in_many_ways() -> None:
    header = ct_slice(np.zeros((4, 4), np.int16))
    header.PatientName, header.PatientID = "Doe^Jane Ann", "A-4711"
    header.OtherPatientIDs = ["Z-1", "Z-2"]
    header.PatientBirthDate, header.InstitutionName = "19700131", "St. Mary"
    found = identity_words(header)
    for word in (
        "Doe", "Jane", "Ann", "DoeJaneAnn", "Doe_Jane_Ann", "Ann Jane Doe", "A-4711", "Z-1", "Z-2",
        "19700131", "1970-01-31", "31.01.1970", "31.1.70", "01-31-1970", "1970/01/31", "31011970",
        "700131", "St. Mary",
    ):  # fmt: skip
        assert word in found, word


@pytest.mark.parametrize(
    "path",
    ["山田太郎", "山田_太郎", "山田^太郎", "やまだ", "Yamada_Tarou", "TarouYamada", "山田"],
)
def test_names_in_other_letters_are_cleared_from_paths(path: str) -> None:
    header = ct_slice(np.zeros((4, 4), np.int16))
    header.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    hide(identity_words(header))
    assert cleared(f"/scans/{path}/a.nii") == f"/scans/{REMOVED}/a.nii"


def test_a_name_is_cleared_whose_dots_stand_behind_their_letters() -> None:
    header = ct_slice(np.zeros((4, 4), np.int16))
    header.PatientName = "Müller^Jörg"
    hide(identity_words(header))
    assert cleared(unicodedata.normalize("NFD", "/scans/Müller_7")) == f"/scans/{REMOVED}_7"


@pytest.mark.parametrize("name", ["", "山田^太郎", "Müller"])
def test_the_first_slice_of_a_folder_tells(tmp_path: Path, name: str) -> None:
    assert identity_of(tmp_path) == set()
    (tmp_path / "0.dcm").write_bytes(b"no slice")
    header = ct_slice(np.zeros((4, 4), np.int16))
    header.SpecificCharacterSet, header.PatientName = "ISO_IR 192", name
    header.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    found = identity_of(tmp_path)
    assert "7" in found  # the ID
    assert set(filter(None, name.split("^"))) <= found
    assert identity_of(tmp_path / "1.dcm") == found
    assert identity_of(tmp_path / "0.dcm") == set()
