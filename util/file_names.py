"""Names of files as text for people: on a terminal, in a picture, on a page."""

from __future__ import annotations

import os

LONGEST_NAME = 80  # characters


def presentable(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that can be written anywhere, in one line.

    Bytes that are no UTF-8, line breaks and other characters that are not seen become escapes such
    as \\xe9, and of a long name the start and the end stay. What a name means to a program that
    shows it (HTML, a formula) is that program's matter.

    Args:
        name: of a file, as the system gives it.
        longest: characters.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    shown = "".join(one if one.isprintable() else escaped(one) for one in text)
    if len(shown) <= longest:
        return shown
    kept = longest - 3
    return f"{shown[: kept - kept // 2]}...{shown[-(kept // 2) :]}"


def drawn(name: str) -> str:
    """A name for Matplotlib, to which $ begins a formula, and an underscore a hidden curve."""
    text = presentable(name).replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def one_line(message: str) -> str:
    """A message whose line breaks, which can only be those of names in it, are escaped."""
    return "".join(escaped(one) if one in "\r\n\v\f\x85\u2028\u2029" else one for one in message)


def escaped(character: str) -> str:
    """Such as \\n or \\u202e."""
    return character.encode("unicode_escape").decode("ascii")
