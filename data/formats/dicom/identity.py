"""What DICOM headers state of who the patient is, for `util.privacy`."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from itertools import product
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from data.formats.dicom.slice_files import headers_of_file
from data.volumes.names import looks_like_dicom
from util.errors import UserError

NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName")
BIRTH_DATE = "PatientBirthDate"
IDS = ("PatientID", "OtherPatientIDs")
INSTITUTION = "InstitutionName"
JOINTS = " '\u2019-"  # within one name: van der Berg, O'Brien, Meyer-Schmidt
TRANSCRIBED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa"})
BETWEEN = ("", " ", "_", "-", "^", ",", ", ", ".")  # what joins parts of a name in a path
BETWEEN_DATES = (" ", "_", "-", ".", "/")


def identity_words(dataset: Dataset) -> set[str]:
    """Words that identify the patient: name and its parts, in either order and with what may stand
    between them in a path; IDs; birth date in several ways; institution."""
    words = {text for keyword in (*NAMES, BIRTH_DATE) for text in _texts(dataset, keyword)}
    for number in _ids(dataset):
        words |= {number, number.lstrip("0"), number.replace(" ", "")}
    for place in _texts(dataset, INSTITUTION):
        words |= {between.join(place.split()) for between in BETWEEN} | {place}
    for name in (text for keyword in NAMES for text in _texts(dataset, keyword)):
        for written in name.split("="):  # in letters, in ideographs, by its sound
            words.add(written)
            for apart in (r"[\^ ]+", rf"[\^{JOINTS}]+", r"\^+"):
                parts = [part for part in re.split(apart, written) if part]
                orders = (parts, parts[::-1])
                words |= {*parts, *(re.sub(f"[{JOINTS}]", "", part) for part in parts)}
                words |= {between.join(order) for order in orders for between in BETWEEN}
    for date in _texts(dataset, BIRTH_DATE):
        words |= _ways_of_writing(date)
    return words | {plain for word in words for plain in _in_plain_letters(word)}


def _ids(dataset: Dataset) -> list[str]:
    """IDs of the patient, those of other institutions included."""
    others = [_texts(item, "PatientID") for item in dataset.get("OtherPatientIDsSequence") or ()]
    return [text for texts in (*(_texts(dataset, word) for word in IDS), *others) for text in texts]


def _in_plain_letters(word: str) -> set[str]:
    """A word as it stands in paths without accents: Müller as Mueller and Muller."""
    composed = unicodedata.normalize("NFC", word).casefold()
    bare = "".join(
        letter
        for letter in unicodedata.normalize("NFD", composed)
        if not unicodedata.combining(letter)
    )
    return {composed.translate(TRANSCRIBED), bare} - {composed}


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


def identity_of(place: Path) -> set[str]:
    """Those of the first slice in a folder, or of a file; none where there is none."""
    for path in sorted(place.iterdir()) if place.is_dir() else [place]:
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
