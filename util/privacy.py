"""What identifies patients, kept out of records, pages and pictures.

Readers tell what their files state (`hide`); all that describes a run goes through `cleared`.
One list for the whole process, since a record of one case may name the inputs of all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

REMOVED = "[patient]"
SHORTEST = 3  # characters: initials and short numbers would be found everywhere
FEWEST_DIGITS = 5  # of a number: shorter ones stand in settings, sizes and versions, too
IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # Chinese, Japanese, Korean
_hidden: set[str] = set()
_kept = False


def keep_all(keep: bool) -> None:
    """Whether nothing is to be cleared (--keep_identity)."""
    global _kept
    _kept = keep


def hide(words: Iterable[str]) -> None:
    """Clear these words, as they stand in a file's header, from all that is written from now on."""
    _hidden.update(word for word in map(_composed, words) if _is_telling(word))


def _composed(text: str) -> str:
    """Text as most write it: paths of macOS have the dots of a letter behind it."""
    return unicodedata.normalize("NFC", text)


def _is_telling(word: str) -> bool:
    """Whether a word is long enough; two ideographs are a whole name. No setting begins with 0."""
    is_number = not any(map(str.isalpha, word)) and not word.startswith("0")
    if is_number and sum(map(str.isdigit, word)) < FEWEST_DIGITS:
        return False
    shortest = SHORTEST if word.isascii() or not IDEOGRAPHS.search(word) else 2
    return len(word) >= shortest


def forget_hidden() -> None:
    """Start anew, as a new process does."""
    _hidden.clear()
    keep_all(False)


def cleared(value: Any) -> Any:
    """A value with every text in it cleared of what is hidden.

    Args:
        value: text, or lists and mappings of what JSON holds (whose keys stay); all else is
            returned as it is. Words are found in any case: letters not within other letters,
            digits not within other digits.
    """
    if _kept or not _hidden:
        return value
    longest_first = sorted(_hidden, key=lambda word: (-len(word), word))
    pattern = re.compile("|".join(map(_alone, longest_first)), re.IGNORECASE)
    return _cleared(value, pattern)


def _alone(word: str) -> str:
    """Pattern of a word that is no part of a longer one."""
    before, after = (r"[^\W\d_]" if end.isalpha() else r"\d" for end in (word[0], word[-1]))
    return f"(?<!{before}){re.escape(word)}(?!{after})"


def _cleared(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        composed = _composed(value)
        found = pattern.sub(REMOVED, composed)
        return value if found == composed else found
    if isinstance(value, Mapping):
        return {key: _cleared(one, pattern) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleared(one, pattern) for one in value]
    return value
