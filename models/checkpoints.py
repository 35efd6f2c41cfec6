"""Checkpoints: one file holds all that training or testing needs; written whole or not at all."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.networks import SRGenerator, recognise_generator
from util.errors import UserError
from util.files import atomic_path, write_text

FORMAT = "sr-cyclegan"
VERSION = 1
LAST_FILE = "last_experiment.txt"
ORIGINAL_NAMES = ("G_A", "G_B", "D_A", "D_B")


@dataclass(frozen=True)
class LoadedGenerator:
    """An SR generator ready for testing, with what its checkpoint says about it.

    Attributes:
        generator: in evaluation mode, on the CPU.
        windows: intensity windows as a plain dict; None in a bare state dict, which has none.
        training_digests: slice digests (see `Volume.slice_digests`) of all training volumes.
        origin: path of the file.
        step: optimisation steps behind the weights; None in a bare state dict.
        options: training options as text-like values; empty in a bare state dict.
        digest: fingerprint of the weights, see `weights_digest`.
    """

    generator: SRGenerator
    windows: Mapping[str, Any] | None
    training_digests: frozenset[str]
    origin: Path
    step: int | None
    options: Mapping[str, Any]
    digest: str = ""


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a network's state dict, 64 hex digits.

    Depends on the weights alone, not on the file that they came in.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def checkpoint_path(folder: Path, epoch: str, load_iter: int) -> Path:
    """File of the checkpoint named by --epoch, or by --load_iter where that is not 0."""
    if load_iter:
        return folder / f"iter_{load_iter}.pt"
    return folder / ("latest.pt" if epoch == "latest" else f"epoch_{epoch}.pt")


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) to `path` in one atomic step."""
    with atomic_path(path) as partial:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **state}, partial)
        except RuntimeError as error:
            # So torch says that the disk is full; the earlier checkpoint of this name stays.
            raise OSError(str(error).splitlines()[0]) from error


def load_file(path: Path) -> Any:
    """Read a file of tensors without running code from it.

    Raises:
        UserError: missing, cut off, not a torch file, or holding more than tensors and plain
            values.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.pt"))
        named = sorted(p.parent.name for p in path.parent.parent.glob("*/latest.pt"))
        hint = "give the path of a checkpoint, or train first: bash run.sh"
        if there:
            hint = f"there is {', '.join(there)}"
        elif named:
            hint = f"{path.parent.parent} holds the experiments {', '.join(named)}"
        raise UserError(f"no checkpoint {path}: {hint}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no checkpoint of tensors and plain values and is not loaded, since "
            "it could run code: give a state dict saved with torch.save(net.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it may be cut off; "
            "give another one"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project, as `save_checkpoint` wrote it.

    Raises:
        UserError: as `load_file`; a bare state dict; a version that this code does not know.
    """
    state = load_file(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(
            f"{path} holds weights but no training state: give a checkpoint that train.py wrote"
        )
    if state["version"] > VERSION:
        raise UserError(
            f"{path} has checkpoint version {state['version']}, this code knows up to {VERSION}: "
            "update the code"
        )
    return state


def strip_parallel_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict without the `module.` that nn.DataParallel puts before every key."""
    return {key.removeprefix("module."): value for key, value in weights.items()}


def load_generator(path: Path) -> LoadedGenerator:
    """Load G_A for testing, from a checkpoint of this project or a bare state dict.

    The architecture comes with the checkpoint; for a bare state dict (latest_net_G_A.pth of the
    original code) it is recognised by the shapes of the weights.

    Raises:
        UserError: as `load_file`, or weights that are not an SR generator's.
    """
    state = load_file(path)
    if isinstance(state, dict) and state.get("format") == FORMAT:
        state = load_checkpoint(path)
        try:
            generator = SRGenerator(**state["architecture"])
            generator.load_state_dict(state["networks"]["G_A"])
            loaded = LoadedGenerator(
                generator,
                state["windows"],
                frozenset(state["training_digests"]),
                path,
                state["position"]["step"],
                state["options"],
            )
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path} is a damaged checkpoint ({reason}): give another one, such as an "
                "epoch_N.pt beside it"
            ) from error
    else:
        try:
            weights = strip_parallel_prefix(state)
            generator = SRGenerator(**recognise_generator(weights))  # type: ignore[arg-type]
            generator.load_state_dict(weights)
        except (ValueError, AttributeError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path} does not hold an SR generator ({reason}): give a checkpoint of train.py "
                "or a G_A state dict"
            ) from error
        loaded = LoadedGenerator(generator, None, frozenset(), path, None, {})
    loaded.generator.eval().requires_grad_(False)
    return replace(loaded, digest=weights_digest(loaded.generator))


def load_original_weights(folder: Path, epoch: str) -> dict[str, dict[str, Tensor]] | None:
    """The four state dicts EPOCH_net_NAME.pth of the original code; None where they are absent."""
    paths = {name: folder / f"{epoch}_net_{name}.pth" for name in ORIGINAL_NAMES}
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: strip_parallel_prefix(load_file(path)) for name, path in paths.items()}


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


def superseded_checkpoints(folder: Path, epoch: int, step: int, fresh: bool) -> list[Path]:
    """Checkpoints of an earlier run that a run which begins here will make void.

    A fresh start (--overwrite) replaces all of them. Going back to an earlier checkpoint leaves
    those beyond it on an abandoned branch: pruning by number would keep them and delete the new
    ones. Delete what is returned only once the new run has saved.

    Args:
        folder: of the experiment.
        epoch, step: where the run begins; its next finished epoch is `epoch`.
        fresh: whether it begins anew.
    """
    limits = {"epoch": epoch - 1, "iter": step}
    void = [folder / "latest.pt"] if fresh else []
    for kind, limit in limits.items():
        for path in folder.glob(f"{kind}_*.pt"):
            number = path.stem.removeprefix(f"{kind}_")
            if number.isdigit() and (fresh or int(number) > limit):
                void.append(path)
    return void


def remember_experiment(checkpoints_dir: Path, name: str) -> None:
    """Note which experiment was trained last, for tests that name none."""
    write_text(checkpoints_dir / LAST_FILE, name + "\n")


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
    return path.read_text(encoding="utf-8").strip()
