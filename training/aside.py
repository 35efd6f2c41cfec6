"""What a run shows stays aside while another one takes its place, until that one has saved."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.checkpoints.experiment_folder import LATEST
from util.errors import UserError
from util.files import PARTIAL_ENDING, write_text

# What a run writes before its first checkpoint.
SHOWN = ("loss_log.csv", "validation.csv", "curves.png", "web", "tensorboard", "run.json")
ASIDE = "before"
OWNER = "checkpoint.sha256"  # names the checkpoint that what is aside belongs to
CHUNK = 1 << 24


def put_aside(folder: Path) -> None:
    """Keep what an experiment's folder shows until `forget_aside`.

    Raises:
        UserError: the disk refused.
    """
    partial = folder / (ASIDE + PARTIAL_ENDING)
    shutil.rmtree(partial, ignore_errors=True)
    shown = [folder / name for name in SHOWN if (folder / name).exists()]
    if not shown and not (folder / LATEST).exists():
        return
    try:
        partial.mkdir()
        for path in shown:
            copy(path, partial / path.name)
        write_text(partial / OWNER, file_digest(folder / LATEST))
        partial.rename(folder / ASIDE)
    except OSError as error:
        raise UserError(f"cannot keep the logs of {folder} aside ({error.strerror})") from error


def forget_aside(folder: Path) -> None:
    """Delete what is aside, once a checkpoint has taken the place of those that it belongs to."""
    partial = folder / (ASIDE + PARTIAL_ENDING)
    if (folder / ASIDE).is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        (folder / ASIDE).rename(partial)  # at once, so that a part of it is never given back
    shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def given_back_unless_saved(folder: Path) -> Iterator[None]:
    """Put everything back where a run has ended before its first checkpoint: this one when it
    leaves, and an earlier one that was killed."""
    give_back(folder)
    try:
        yield
    finally:
        give_back(folder)


def give_back(folder: Path) -> None:
    """Show again what is aside, where it belongs to the checkpoint that is there."""
    aside = folder / ASIDE
    if not aside.is_dir():
        return
    if (aside / OWNER).read_text(encoding="utf-8") == file_digest(folder / LATEST):
        for name in SHOWN:
            remove(folder / name)
            if (aside / name).exists():
                copy(aside / name, folder / name)  # so that it can be done again
    forget_aside(folder)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)


def remove(path: Path) -> None:
    """Delete a file or a folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file; nothing where there is none."""
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
