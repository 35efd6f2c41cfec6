"""The checkpoints in an experiment's folder: their names, which one counts, which ones go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from models.checkpoints.checkpoint import DamagedCheckpointError, load_checkpoint
from util.errors import UserError
from util.files import PARTIAL_ENDING, atomic_path

LATEST, PREVIOUS, BEST = "latest.pt", "previous.pt", "best.pt"
LAST_FILE = "last_experiment.txt"


def checkpoint_path(folder: Path, epoch: str, load_iter: int) -> Path:
    """File of the checkpoint named by --epoch (latest, best or a number), or by --load_iter."""
    if load_iter:
        return folder / f"iter_{load_iter}.pt"
    return folder / (f"{epoch}.pt" if epoch in ("latest", "best") else f"epoch_{epoch}.pt")


def keep_previous(path: Path) -> None:
    """Let `previous.pt` name the latest checkpoint that is about to be replaced.

    There is a whole checkpoint at any moment, even where a file system without hard links leaves
    none under the name `latest.pt` for an instant.
    """
    previous = path.with_name(PREVIOUS)
    link = previous.with_name(PREVIOUS + PARTIAL_ENDING)
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(path)
    except OSError:
        path.replace(previous)
    else:
        link.replace(previous)
        link.unlink(missing_ok=True)  # a rename between two names of one file leaves both


def load_newest(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The latest training state in a folder that can be read: `latest.pt`, else the one before.

    Args:
        folder: of the experiment.
        say: takes a line where something is not as it should be.

    Raises:
        UserError: as `load_checkpoint`, where there is no earlier one either.
    """
    latest, previous = folder / LATEST, folder / PREVIOUS
    partial = latest.with_name(LATEST + PARTIAL_ENDING)
    if partial.is_file():
        say(f"{partial} was cut off while it was written and is not used")
    try:
        return load_checkpoint(latest)
    except UserError as error:
        whole = latest.exists() and not isinstance(error, DamagedCheckpointError)
        if whole or not previous.is_file():
            raise
        state = load_checkpoint(previous)
        say(f"{latest} is missing or cut off: going on from the one before it, {previous}")
        with suppress(FileNotFoundError):  # or the next save would make it the one before
            latest.replace(latest.with_suffix(".damaged"))
        return state


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest numbered checkpoints; 0 keeps every one.

    `latest.pt` is never deleted. Epoch and step checkpoints are counted apart, by their number.
    """
    if keep == 0:
        return
    for kind in ("epoch", "iter"):
        numbered = {
            int(match[1]): path
            for path in folder.glob(f"{kind}_*.pt")
            if (match := re.fullmatch(rf"{kind}_(\d+)\.pt", path.name))
        }
        for number in sorted(numbered)[:-keep]:
            numbered[number].unlink()


def superseded_checkpoints(
    folder: Path, epoch: int, step: int, fresh: bool, goes_back: bool
) -> list[Path]:
    """Checkpoints of an earlier run that a run which begins here will make void.

    A fresh start (--overwrite) replaces all of them. Going back to an earlier checkpoint leaves
    those beyond it on an abandoned branch: pruning by number would keep them and delete the new
    ones. Delete what is returned only once the new run has saved.

    Args:
        folder: of the experiment.
        epoch, step: where the run begins; its next finished epoch is `epoch`.
        fresh: whether it begins anew.
        goes_back: whether it begins from another checkpoint than the latest.
    """
    limits = {"epoch": epoch - 1, "iter": step}
    void = [folder / LATEST, folder / BEST] if fresh else []
    if fresh or goes_back:
        void.append(folder / PREVIOUS)
    for kind, limit in limits.items():
        for path in folder.glob(f"{kind}_*.pt"):
            number = path.stem.removeprefix(f"{kind}_")
            if number.isdigit() and (fresh or int(number) > limit):
                void.append(path)
    return void


def remember_experiment(checkpoints_dir: Path, name: str) -> None:
    """Note which experiment was trained last, for tests that name none."""
    with atomic_path(checkpoints_dir / LAST_FILE, shared=True) as partial:
        partial.write_bytes(os.fsencode(f"{name}\n"))  # a folder's name may be no UTF-8


def last_experiment(checkpoints_dir: Path) -> str:
    """Name of the experiment that was trained last.

    Raises:
        UserError: nothing has been trained here.
    """
    path = checkpoints_dir / LAST_FILE
    if not path.is_file():
        raise UserError(
            f"nothing has been trained yet in {checkpoints_dir}: run `bash run.sh` first, or give "
            "--checkpoint FILE"
        )
    return os.fsdecode(path.read_bytes()).removesuffix("\n")  # a name may end in a blank
