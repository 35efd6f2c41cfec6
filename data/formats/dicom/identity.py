"""What DICOM headers state of who the patient is, for `util.privacy`."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from data.formats.dicom.headers import headers_of_file
from data.volumes.names import looks_like_dicom
from util.errors import UserError

NAMES = ("PatientName", "OtherPatientNames")
BIRTH_DATE = "PatientBirthDate"
OTHERS = ("PatientID", "OtherPatientIDs", "InstitutionName")
BETWEEN = ("", " ", "_", "-", "^", ",", ", ", ".")  # what joins parts of a name or date in a path


def identity_words(dataset: Dataset) -> set[str]:
    """Words that identify the patient: name and its parts, in either order and with what may stand
    between them in a path; IDs; birth date in several ways; institution."""
    words = {text for keyword in (*NAMES, BIRTH_DATE, *OTHERS) for text in _texts(dataset, keyword)}
    for name in (text for keyword in NAMES for text in _texts(dataset, keyword)):
        parts = [part for part in re.split(r"[\^= ]+", name) if part]
        orders = (parts, parts[::-1])
        words |= {*parts, *(between.join(order) for order in orders for between in BETWEEN)}
    for date in _texts(dataset, BIRTH_DATE):
        year, month, day = date[:4], date[4:6], date[6:8]
        dates = ((year, month, day), (day, month, year))
        words |= {between.join(one) for one in dates for between in BETWEEN if between}
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
