"""A process that holds a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWNER = """
import os, sys
from pathlib import Path
from util.disk.folder_lock import owned_folder
with owned_folder(Path(sys.argv[1]), "wait"):
    if sys.argv[2:] and os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_owner(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until its input ends; with a child where there is `more`."""
    words = [sys.executable, "-c", OWNER, str(folder), *more]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()
