"""Errors that a user can mend, and the wrapper that shows them as one line."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from util.console import make_streams_last
from util.file_names import one_line
from util.interrupt import terminate_like_interrupt

EXIT_USER_ERROR = 2
LONGEST_REASON = 100  # characters
LONGEST_MESSAGE = 300
EXIT_INTERRUPTED = 130
OUT_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "cuda error: out of memory")
PROJECT = Path(__file__).resolve().parents[1]


class UserError(Exception):
    """Something a user can mend: the message says what was got, what was expected, what to do."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine or its GPU had no memory left (told without importing torch)."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error.

    Python's own locks turn a KeyboardInterrupt that comes between two of their lines into
    "RuntimeError: release unlocked lock".
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def run_program(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Be a program: `run_command_line` with the words of this process, which schedulers may stop,
    too."""
    terminate_like_interrupt()
    sys.exit(run_command_line(main, sys.argv[1:]))


def run_command_line(main: Callable[[list[str]], int | None], arguments: list[str]) -> int:
    """Run `main` and turn a `UserError` into one line on standard error.

    Args:
        main: the command; gets the arguments, returns an exit code or None for success.
        arguments: command-line words without the program's name. `--debug` among them shows
            the traceback of a `UserError` as well.

    Returns:
        Exit code: what `main` returned, 2 for a user error, a missing package, a file that the
        system refused or when memory ran out, 130 when interrupted by Ctrl-C.
        Any other exception is a fault of the program and passes through with its traceback.
    """
    make_streams_last()
    # Matplotlib draws a box for a letter that its font lacks.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    try:
        return main(arguments) or 0
    except UserError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"error: {shortened(one_line(str(error)))}", file=sys.stderr)
        return EXIT_USER_ERROR
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or (PROJECT / package).exists() or (PROJECT / f"{package}.py").exists():
            raise
        print(
            f"error: {sys.executable} lacks the package {package}: type "
            "`source .venv/bin/activate` first; bash run.sh makes .venv",
            file=sys.stderr,
        )
        return EXIT_USER_ERROR
    except Exception as error:
        if was_interrupted(error):
            return say_interrupted()
        refused = refused_by_system(error)
        if refused is None and not is_out_of_memory(error):
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        if refused is not None:
            print(f"error: {shortened(one_line(refused))}", file=sys.stderr)
            return EXIT_USER_ERROR
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        print(
            f"error: out of memory ({reason}): train with a smaller --batch_size or --ngf, test "
            "with a smaller --max_memory or with --precision bf16",
            file=sys.stderr,
        )
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return say_interrupted()


def refused_by_system(error: Exception) -> str | None:
    """What the system refused, in words; None for an error of another kind."""
    if is_out_of_memory(error):
        return None
    if isinstance(error, ImportError):  # a package that is there
        return (
            f"cannot load {error.name or 'a package'} ({reason_of(error)}): allow more memory "
            "(ulimit -v), or delete .venv and let run.sh install it anew"
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    place = f" {error.filename}" if error.filename is not None else ""
    return (
        f"the system refused{place}: {error.strerror}; give a place that is there and has room "
        "(--debug shows where it was needed)"
    )


def shortened(message: str) -> str:
    """A message of at most `LONGEST_MESSAGE` characters, if its long paths make it longer: of each
    the start and the end stay."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    paths = [Path(word.rstrip(":,;()")) for word in message.split() if "/" in word]
    for path in sorted(set(paths), key=lambda path: -len(str(path))):
        if len(message) > LONGEST_MESSAGE and len(path.parts) > 4:
            short = Path(*path.parts[:2], "..", *path.parts[-2:])
            message = message.replace(str(path), str(short))
    return message


def say_interrupted() -> int:
    """One line, and the exit code for it."""
    print("interrupted", file=sys.stderr)
    return EXIT_INTERRUPTED


def reason_of(error: Exception) -> str:
    """A library's error for a message: its last line, shortened."""
    last = (str(error).strip().splitlines() or [""])[-1].strip()
    # A lone word, such as the key that lacked, says nothing without the kind of error.
    text = last if " " in last else f"{type(error).__name__} {last}".strip()
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}.."


def some_of(items: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """A list for a message: "a, b, c and 297 more"."""
    shown = between.join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
