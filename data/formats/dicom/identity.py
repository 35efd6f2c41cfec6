"""What DICOM headers state of who the patient is, for `util.privacy`."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import product
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from data.formats.dicom.files import headers_of_file
from data.volumes.names import looks_like_dicom
from util.errors import UserError

NAMES = ("PatientName", "OtherPatientNames")
BIRTH_DATE = "PatientBirthDate"
OTHERS = ("PatientID", "OtherPatientIDs", "InstitutionName")
BETWEEN = ("", " ", "_", "-", "^", ",", ", ", ".")  # what joins parts of a name in a path
BETWEEN_DATES = (" ", "_", "-", ".", "/")


def identity_words(dataset: Dataset) -> set[str]:
    """Words that identify the patient: name and its parts, in either order and with what may stand
    between them in a path; IDs; birth date in several ways; institution."""
    words = {text for keyword in (*NAMES, BIRTH_DATE, *OTHERS) for text in _texts(dataset, keyword)}
    for name in (text for keyword in NAMES for text in _texts(dataset, keyword)):
        for written in name.split("="):  # in letters, in ideographs, by its sound
            parts = [part for part in re.split(r"[\^ ]+", written) if part]
            orders = (parts, parts[::-1])
            words |= {written, *parts}
            words |= {between.join(order) for order in orders for between in BETWEEN}
    for date in _texts(dataset, BIRTH_DATE):
        words |= _ways_of_writing(date)
    return words


def _ways_of_writing(date: str) -> set[str]:
    """A date YYYYMMDD with year, month or day first, with zeros or without, the year in two digits
    or four."""
    if not re.fullmatch(r"\d{8}", date):
        return set()
    year, month, day = date[:4], date[4:6], date[6:8]
    words = set()
    for y, m, d in product((year, year[2:]), {month, month.lstrip("0")}, {day, day.lstrip("0")}):
        for one in ((y, m, d), (d, m, y), (m, d, y)):
            words |= {between.join(one) for between in BETWEEN_DATES}
            if len(m + d) == 4:
                words.add("".join(one))
    return words


def identity_of(folder: Path) -> set[str]:
    """Those of the first slice in a folder; none of a folder without slices."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and looks_like_dicom(path):
            with suppress(UserError):
                for header in headers_of_file(path):
                    return identity_words(header.dataset)
    return set()


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an element of one or several."""
    try:
        value = dataset.get(keyword)
        several = value if isinstance(value, MultiValue) else [value]
        return [text for one in several if (text := str(one or "").strip(" \0"))]
    except Exception:  # noqa: BLE001 - what pydicom cannot convert is in no path either
        return []
