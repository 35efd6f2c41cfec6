"""Standard output and error that no reader, disk or terminal can make a run fail by."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Any, TextIO

BUFFER_BYTES = 1 << 13
LINE_UP = "\x1b[A"
# What a name of a file may hold and a terminal would act on: controls but for line ends, tabs and
# the return of progress bars, and marks that turn the direction of what follows.
ESCAPED = {
    code: f"\\x{code:02x}"
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if chr(code) not in "\t\n\r"
} | {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


class LastingStream(io.FileIO):
    """A descriptor whose failures are no errors of the program.

    Where nobody reads any more (`| head`) the run is asked to stop, as a scheduler does by SIGTERM,
    so that what it has is saved. Lines that a full disk or a closed terminal cannot take are lost.
    """

    def write(self, data: Any, /) -> int:
        """Write what can be written; returns as if all were."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno == errno.EPIPE:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
                signal.raise_signal(signal.SIGTERM)
            return len(data)


class EscapingText(io.TextIOWrapper):
    """Text whose control characters are shown, not acted on."""

    def write(self, text: str, /) -> int:
        """Write text; returns its length."""
        moves = not text.replace(LINE_UP, "").strip("\r\n")  # of progress bars below each other
        super().write(text if moves else text.translate(ESCAPED))
        return len(text)


def last(encoding: str, number: int) -> TextIO:
    """A descriptor as a lasting stream, line by line; characters that it does not know are
    escaped."""
    raw = LastingStream(number, "w", closefd=False)
    return EscapingText(
        io.BufferedWriter(raw, BUFFER_BYTES),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def make_streams_last() -> None:
    """Let both streams of this process last; those that a test has replaced stay, and those that
    it was started without (`2>&-`) lead nowhere."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            _open_nowhere(number)
        if stream is getattr(sys, f"__{name}__") and not _lasts(stream):
            if stream is not None:
                stream.flush()
            made = last("utf-8" if stream is None else stream.encoding, number)
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)


def _open_nowhere(number: int) -> None:
    """Take a closed descriptor, or the next file would be opened on it and get what libraries
    say."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


def _lasts(stream: TextIO | None) -> bool:
    return isinstance(getattr(getattr(stream, "buffer", None), "raw", None), LastingStream)
