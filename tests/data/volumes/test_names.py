"""What is DICOM by its first bytes, and the names of cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_helpers import ct_slice
from pydicom.filewriter import dcmwrite

from data.volumes.names import case_name, looks_like_dicom


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("first", ["meta", "SpecificCharacterSet", "ImageType", "SOPClassUID"])
def test_dicom_without_a_preamble(tmp_path: Path, first: str, implicit: bool) -> None:
    header = ct_slice(np.zeros((4, 4), np.int16))
    header.SpecificCharacterSet = "" if implicit else "ISO_IR 100"
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    if first == "meta":
        header.save_as(tmp_path / "a", enforce_file_format=True)
        (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[132:])
    else:
        del header.file_meta
        for keyword in ("SpecificCharacterSet", "ImageType", "SOPClassUID"):
            if keyword == first:
                break
            delattr(header, keyword)
        dcmwrite(tmp_path / "a", header, implicit_vr=implicit, little_endian=True)
    assert looks_like_dicom(tmp_path / "a")


@pytest.mark.parametrize(
    "values",
    [
        np.full(300, 2, "<i4"),
        np.full(300, 8, "<i4"),
        np.arange(2, 300, dtype="<i4"),
        np.array([2, 0, 1100, 1090] * 50, "<i2"),
        np.array([2, 0, 4, 0, 3] * 50, "<i2"),
        np.array([8, 5, 7, 6] * 50, "<i2"),
        np.array([8, 22, 30, 1] * 50, "<i2"),
        np.array([2], "<i4"),
    ],
)
def test_raw_voxels_are_no_dicom(tmp_path: Path, values: np.ndarray) -> None:
    (tmp_path / "ct.raw").write_bytes(values.tobytes())
    assert not looks_like_dicom(tmp_path / "ct.raw")


@pytest.mark.parametrize("ending", ["dcm", "IMA"])
def test_a_folder_keeps_what_looks_like_an_ending_of_dicom(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"P1.{ending}").mkdir()
    assert case_name(tmp_path / f"P1.{ending}") == f"P1.{ending}"
    assert case_name(tmp_path / f"P2.{ending}") == "P2"
