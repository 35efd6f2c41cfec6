"""What identifies a patient is left out of what is written."""

from __future__ import annotations

import time

import pytest

from util.privacy import REMOVED, cleared, hide, keep_all

WORDS = ("Doe^Jane", "Doe", "Jane", "DoeJane", "12345", "19700131", "St. Mary's", "", "AB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/DOE_12345/scan", f"/data/{REMOVED}_{REMOVED}/scan"),
        ("/data/doe-jane.nii", f"/data/{REMOVED}-{REMOVED}.nii"),
        ("Doe^Jane, born 19700131", f"{REMOVED}, born {REMOVED}"),
        ("at St. Mary's", f"at {REMOVED}"),
        ("Doe1/doejane2", f"{REMOVED}1/{REMOVED}2"),
        # Parts of other words and numbers stay, and what is too short to tell anybody.
        ("/data/does/janet/612345/AB.nii", "/data/does/janet/612345/AB.nii"),
        ("", ""),
    ],
)
def test_words_are_cleared_where_they_stand_alone(text: str, expected: str) -> None:
    assert cleared(text) == text
    hide(WORDS)
    assert cleared(text) == expected


def test_all_that_json_holds_is_gone_through() -> None:
    hide(WORDS)
    record = {"input": ["a/Doe"], "Doe": {"n": 12345, "x": None, "y": (1.5, "Jane")}}
    assert cleared(record) == {
        "input": [f"a/{REMOVED}"],
        "Doe": {"n": 12345, "x": None, "y": [1.5, REMOVED]},
    }


def test_the_longest_of_several_words_at_one_place_is_cleared() -> None:
    hide(["Jane", "Jane Ann", "Jane Ann Doe", "(Roe)", "\u0130nci", "7-4711-x"])
    assert cleared("Jane Ann/jane ann doe/JANE ANNA") == f"{REMOVED}/{REMOVED}/{REMOVED} ANNA"
    assert cleared("a(Roe)b \u0130NCI 7-4711-X") == f"a{REMOVED}b {REMOVED} {REMOVED}"


def test_a_cohort_of_words_costs_no_more_than_a_few() -> None:
    hide(f"Name{number}_Jane{number % 7}" for number in range(20_000))
    began = time.process_time()
    assert (
        cleared(["/data/cohort/name19999_jane0/ct"] * 500) == [f"/data/cohort/{REMOVED}/ct"] * 500
    )
    assert time.process_time() - began < 0.5  # seconds; one pattern of all words takes many


def test_all_may_be_kept() -> None:
    hide(WORDS)
    keep_all(True)
    assert cleared("a/Doe") == "a/Doe"


@pytest.mark.parametrize("number", ["100", "4711", "2.5.10", "1-2-80"])
def test_short_numbers_stay_but_in_paths_since_settings_hold_them_too(
    number: str,
) -> None:
    hide([number, f"0{number}"])
    assert cleared(f"--slices 0:{number}") == f"--slices 0:{number}"
    assert cleared(f"/data/0{number}/ct") == f"/data/{REMOVED}/ct"
    assert cleared(f"/data/{number}/ct") == f"/data/{REMOVED}/ct"
    assert cleared(f"{number}.nii.gz") == f"{REMOVED}.nii.gz"
