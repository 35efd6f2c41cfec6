"""What identifies a patient is left out of what is written."""

from __future__ import annotations

import pytest

from util.privacy import REMOVED, without_identity

WORDS = ("Doe^Jane", "Doe", "Jane", "12345", "19700131", "St. Mary's", "", "AB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/DOE_12345/scan", f"/data/{REMOVED}_{REMOVED}/scan"),
        ("/data/doe-jane.nii", f"/data/{REMOVED}-{REMOVED}.nii"),
        ("Doe^Jane, born 19700131", f"{REMOVED}, born {REMOVED}"),
        ("at St. Mary's", f"at {REMOVED}"),
        # Parts of other words and numbers stay, and what is too short to tell anybody.
        ("/data/does/janet/612345/AB.nii", "/data/does/janet/612345/AB.nii"),
        ("", ""),
    ],
)
def test_words_are_removed_where_they_stand_alone(text: str, expected: str) -> None:
    assert without_identity(text, WORDS) == expected


def test_all_that_json_holds_is_gone_through() -> None:
    record = {"input": ["a/Doe"], "Doe": {"n": 12345, "x": None, "y": (1.5, "Jane")}}
    expected = {"input": [f"a/{REMOVED}"], REMOVED: {"n": 12345, "x": None, "y": [1.5, REMOVED]}}
    assert without_identity(record, WORDS) == expected
    assert without_identity(record, ()) is record
