"""What identifies patients, kept out of records, pages and pictures.

Readers tell what their files state (`hide`); all that describes a run goes through `cleared`.
One list for the whole process, since a record of one case may name the inputs of all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

REMOVED = "[patient]"
SHORTEST = 3  # characters: initials and short numbers would be found everywhere
FEWEST_DIGITS = 5  # of a number: shorter ones are cleared from paths alone, not from settings
IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # Chinese, Japanese, Korean
PATH_ENDING = re.compile(r"\.[A-Za-z]{2,4}(\.gz)?$")  # of a file without its folder
TOKEN = re.compile(r"[^\W\d_]+|\d+|[\W_]")  # words are found where these begin and end
_hidden: set[str] = set()
_lengths: dict[str, set[int]] = {}  # of the hidden words that begin with a token
_kept = False


def keep_all(keep: bool) -> None:
    """Whether nothing is to be cleared (--keep_identity)."""
    global _kept
    _kept = keep


def hide(words: Iterable[str]) -> None:
    """Clear these words, as they stand in a file's header, from all that is written from now on."""
    for word in map(_composed, words):
        if _is_telling(word):
            small = _in_small_letters(word)
            _hidden.add(small)
            _lengths.setdefault(TOKEN.findall(small)[0], set()).add(len(small))


def _composed(text: str) -> str:
    """Text as most write it: paths of macOS have the dots of a letter behind it."""
    return unicodedata.normalize("NFC", text)


def _in_small_letters(text: str) -> str:
    """Text of the same length in one case."""
    small = text.lower()
    if len(small) == len(text):
        return small
    return "".join(one if len(one.lower()) > 1 else one.lower() for one in text)


def _is_short_number(word: str) -> bool:
    """Whether it may as well be a size or a window. No setting begins with 0."""
    is_number = not any(map(str.isalpha, word)) and not word.startswith("0")
    return is_number and sum(map(str.isdigit, word)) < FEWEST_DIGITS


def _is_telling(word: str) -> bool:
    """Whether a word is long enough; two ideographs are a whole name."""
    shortest = SHORTEST if word.isascii() or not IDEOGRAPHS.search(word) else 2
    return len(word) >= shortest


def forget_hidden() -> None:
    """Start anew, as a new process does."""
    _hidden.clear()
    _lengths.clear()
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
    if isinstance(value, str):
        return _cleared_text(value)
    if isinstance(value, Mapping):
        return {key: cleared(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [cleared(one) for one in value]
    return value


def _cleared_text(text: str) -> str:
    """Text without hidden words, of those at one place the longest; looked up from token to token,
    since a pattern of all words of a cohort would be tried at each letter."""
    is_path = "/" in text or PATH_ENDING.search(text) is not None
    composed = _composed(text)
    small = _in_small_letters(composed)
    edges = [*(token.start() for token in TOKEN.finditer(small)), len(small)]
    ends = set(edges)
    pieces, done = [], 0
    for start, after in pairwise(edges):
        for length in sorted(_lengths.get(small[start:after], ()), reverse=True):
            end = start + length
            word = small[start:end]
            if not is_path and _is_short_number(word):
                continue
            if start >= done and end in ends and word in _hidden:
                pieces += [composed[done:start], REMOVED]
                done = end
    return "".join([*pieces, composed[done:]]) if pieces else text
