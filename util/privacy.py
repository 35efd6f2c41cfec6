"""What identifies a patient, kept out of records, pages and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

REMOVED = "[patient]"
SHORTEST = 3  # characters: initials and single digits would be found everywhere


def without_identity(value: Any, words: Sequence[str]) -> Any:
    """A value with every text in it, keys too, cleared of words that identify somebody.

    Args:
        value: text, or lists and mappings of what JSON holds; all else is returned as it is.
        words: as they stand in a file's header. Found in any case, between characters that are
            neither letters nor digits; those shorter than `SHORTEST` are not looked for.
    """
    looked_for = sorted({word for word in words if len(word) >= SHORTEST}, key=len, reverse=True)
    if not looked_for:
        return value
    either = "|".join(map(re.escape, looked_for))
    pattern = re.compile(rf"(?<![^\W_])(?:{either})(?![^\W_])", re.IGNORECASE)
    return _cleared(value, pattern)


def _cleared(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(REMOVED, value)
    if isinstance(value, Mapping):
        return {_cleared(key, pattern): _cleared(one, pattern) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleared(one, pattern) for one in value]
    return value
