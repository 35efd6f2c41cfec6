"""Standard output and error that no reader, disk or terminal can make a run fail by."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Any, TextIO

BUFFER_BYTES = 1 << 13


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


def last(stream: TextIO, number: int) -> TextIO:
    """`stream` as a lasting one, line by line; characters that it does not know are escaped."""
    raw = LastingStream(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw, BUFFER_BYTES),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def make_streams_last() -> None:
    """Let both streams of this process last; those that a test has replaced stay."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__") and not _lasts(stream):
            stream.flush()
            made = last(stream, number)
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)


def _lasts(stream: TextIO) -> bool:
    return isinstance(getattr(getattr(stream, "buffer", None), "raw", None), LastingStream)
