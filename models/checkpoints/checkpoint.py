"""Checkpoints: one file holds all that training or testing needs; written whole or not at all."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints.foreign_weights import as_published, opened, unlike
from models.checkpoints.shipped_weights import SCANS, SPREAD, SUFFIX, read_weights
from models.networks import SRGenerator
from util.errors import UserError, reason_of, some_of
from util.files import atomic_path

FORMAT = "sr-cyclegan"
VERSION = 2
ORIGINAL_NAMES = ("G_A", "G_B", "D_A", "D_B")


class DamagedCheckpointError(UserError):
    """A file that was a checkpoint once, or was to become one: cut off or overwritten in part."""


@dataclass(frozen=True)
class LoadedGenerator:
    """An SR generator ready for testing, with what its checkpoint says about it."""

    generator: SRGenerator  # in evaluation mode, on the CPU
    # intensity windows as a plain dict; None in a bare state dict, which has none
    windows: Mapping[str, Any] | None
    # slice digests (see `Volume.slice_digests`) of all training volumes
    training_digests: frozenset[str]
    origin: Path  # path of the file
    step: int | None  # optimisation steps behind the weights; None in a bare state dict
    options: Mapping[str, Any]  # training options as text-like values; empty in a bare state dict
    # name of a property of scans -> lowest and highest value that training saw (see
    # training/known_scans.py); None where the file does not say
    scans: Mapping[str, Any] | None = None
    # factor on the spread of draws of texture, see `models.inference.slice_resolver.SliceResolver`
    spread: float = 1.0
    digest: str = ""  # fingerprint of the weights, see `weights_digest`


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a network's state dict, 64 hex digits.

    Depends on the weights alone, not on the file that they came in.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
        DamagedCheckpointError: cut off, or not a torch file.
        UserError: missing, or holding more than tensors and plain values.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.pt"))
        named = sorted(p.parent.name for p in path.parent.parent.glob("*/latest.pt"))
        hint = "give the path of a checkpoint, or train first: bash run.sh"
        if there:
            hint = f"there is {some_of(there)}"
        elif named:
            hint = f"{path.parent.parent} holds the experiments {some_of(named)}"
        raise UserError(f"no checkpoint {path}: {hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's, about what is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no checkpoint of tensors and plain values and is not loaded, since "
            "it could run code: give a state dict saved with torch.save(net.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise DamagedCheckpointError(
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
    version = state.get("version")
    if not isinstance(version, int):
        raise DamagedCheckpointError(
            f"{path} is a damaged checkpoint (version {version!r}): give another one"
        )
    if version > VERSION:
        raise UserError(
            f"{path} has checkpoint version {version}, this code knows up to {VERSION}: "
            "update the code"
        )
    return upgrade(state)


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of an earlier version as this code writes it.

    Version 1 knew one process, whose pools and random states lay at the top.
    """
    if state["version"] == 1 and "pools" in state:
        state["processes"] = [{"pools": state.pop("pools"), "random": state.pop("random")}]
    return {"average": None, **state, "version": VERSION}


def load_generator(path: Path) -> LoadedGenerator:
    """Load G_A for testing: a checkpoint, weights of models.checkpoints.shipped_weights, or a bare
    state dict.

    The architecture comes with the checkpoint, and the moving average of the weights where one was
    kept (--ema) is taken; for a bare state dict (latest_net_G_A.pth of the
    original code) it is recognised by the shapes of the weights.

    Raises:
        UserError: as `load_file`, or weights that are not an SR generator's.
    """
    if path.suffix == SUFFIX:
        loaded = _load_shipped(path)
        loaded.generator.eval().requires_grad_(False)
        return replace(loaded, digest=weights_digest(loaded.generator))
    state = load_file(path)
    if isinstance(state, dict) and state.get("format") == FORMAT:
        state = load_checkpoint(path)
        try:
            generator = SRGenerator(**state["architecture"])
            average = state["average"]
            generator.load_state_dict(
                state["networks"]["G_A"] if average is None else average["network"]
            )
            loaded = LoadedGenerator(
                generator,
                state["windows"],
                frozenset(state["training_digests"]),
                path,
                state["position"]["step"],
                dict(state["options"]),
                state.get("scans"),
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} is a damaged checkpoint ({reason_of(error)}): give another one, such as "
                "an epoch_N.pt beside it"
            ) from error
    else:
        try:
            weights = as_published(opened(state))
            generator = SRGenerator(**recognise_generator(weights))  # type: ignore[arg-type]
            if difference := unlike(generator.state_dict(), weights):
                raise ValueError(difference)
            generator.load_state_dict(weights)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} does not hold an SR generator ({reason_of(error)}): give a checkpoint of "
                "train.py or a G_A state dict"
            ) from error
        loaded = LoadedGenerator(generator, None, frozenset(), path, None, {})
    loaded.generator.eval().requires_grad_(False)
    return replace(loaded, digest=weights_digest(loaded.generator))


def _load_shipped(path: Path) -> LoadedGenerator:
    weights, facts = read_weights(path)
    try:
        generator = SRGenerator(**facts["architecture"])
        generator.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} holds weights that are not those of the network it names "
            f"({reason_of(error)}): get it "
            "anew"
        ) from error
    options = {"dataset_mode": facts["dataset_mode"]}
    windows, step = facts["windows"], facts["step"]
    scans, spread = facts[SCANS], float(facts[SPREAD] or 1)
    return LoadedGenerator(generator, windows, frozenset(), path, step, options, scans, spread)


def load_original_weights(folder: Path, epoch: str) -> dict[str, dict[str, Tensor]] | None:
    """The four state dicts EPOCH_net_NAME.pth of the original code; None where they are absent."""
    paths = {name: folder / f"{epoch}_net_{name}.pth" for name in ORIGINAL_NAMES}
    if not all(path.is_file() for path in paths.values()):
        return None
    found = {}
    for name, path in paths.items():
        try:
            found[name] = as_published(opened(load_file(path)))
        except ValueError as error:
            raise UserError(f"{path} holds no weights ({error}): give a state dict") from error
    return found


def recognise_generator(weights: dict[str, Tensor]) -> dict[str, int | str]:
    """Read the architecture of an SR generator off the keys and shapes of its state dict.

    Args:
        weights: state dict of `SRGenerator`, as this project or the original code saves it.

    Returns:
        Keyword arguments for `SRGenerator`. Instance norm and no norm leave the same keys;
        instance, the published one, is returned for both; so is no skip. Such files have no
        texture.

    Raises:
        ValueError: the keys are not those of an SR generator.
    """
    if "texture.1.weight" in weights:
        raise ValueError("it has texture layers, and bare weights do not say what else it is")
    blocks = sum(key.endswith("conv_block.1.weight") for key in weights)
    convolutions = sorted(
        (int(key.split(".")[1]), tensor)
        for key, tensor in weights.items()
        if key.count(".") == 2 and key.endswith(".weight") and tensor.dim() == 4
    )
    # Outside the residual blocks stand: first 7x7, the 3x3 after the blocks, n upsampling
    # convolutions (each widening c to 2c) and the last 7x7.
    channels = [tuple(tensor.shape[:2]) for _, tensor in convolutions]
    sampling_times = len(channels) - 3
    if blocks < 1 or sampling_times < 1 or channels[0][1] != 1:
        first = next(iter(weights), "nothing")
        if "model.1.weight" in weights:
            raise ValueError(
                f"{blocks} residual blocks and {len(channels)} other convolutions, the first with "
                f"{channels[0][1] if channels else 0} channels: no SR generator"
            )
        raise ValueError(f"it lacks model.1.weight, and begins with {first}")
    ngf = int(channels[0][0])
    expected = [(ngf, 1), (ngf, ngf)]
    expected += [(2 * ngf // 2**step, ngf // 2**step) for step in range(sampling_times)]
    expected += [(1, ngf // 2**sampling_times)]
    if channels != expected:
        raise ValueError(f"channels {channels} are not those of an SR generator, {expected}")
    norm = "batch" if "model.2.running_mean" in weights else "instance"
    architecture: dict[str, int | str] = {"sampling_times": sampling_times, "ngf": ngf}
    return {**architecture, "blocks": blocks, "norm": norm, "skip": "none", "texture": 0}
