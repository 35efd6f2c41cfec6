"""What identifies patients, kept out of records, pages and pictures.

Readers tell what their files state (`hide`); all that describes a run goes through `cleared`.
One list for the whole process, since a record of one case may name the inputs of all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

REMOVED = "[patient]"
SHORTEST = 3  # characters: initials and short numbers would be found everywhere
_hidden: set[str] = set()
_kept = False


def keep_all(keep: bool) -> None:
    """Whether nothing is to be cleared (--keep_identity)."""
    global _kept
    _kept = keep


def hide(words: Iterable[str]) -> None:
    """Clear these words, as they stand in a file's header, from all that is written from now on."""
    _hidden.update(word for word in words if len(word) >= SHORTEST)


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
        return pattern.sub(REMOVED, value)
    if isinstance(value, Mapping):
        return {key: _cleared(one, pattern) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleared(one, pattern) for one in value]
    return value
