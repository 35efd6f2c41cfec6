"""Weights that a run is given: those that it starts from, and those of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.windows import WindowPolicy
from models.checkpoints.checkpoint import LoadedGenerator, load_generator
from models.medical_cycle_gan import MedicalCycleGANModel
from util.errors import UserError


def start_from_weights(
    path: str, model: MedicalCycleGANModel, say: Callable[[str], None]
) -> LoadedGenerator:
    """Let G_A begin with the weights of a checkpoint, a .safetensors file or a bare state dict.

    Texture layers that the file lacks begin as they are; those of a model without are left out, for
    they belong to the features that training will change. `say` takes a line where that is so.

    Returns:
        What they are: their windows, the slices that they were trained on.

    Raises:
        UserError: they cannot be read, or are of another architecture.
    """
    loaded = load_generator(Path(path))
    was, now = loaded.generator.architecture, model.G_A.architecture
    if loaded.generator.texture is None or model.G_A.texture is None:
        was = {**was, "texture": now["texture"]}
    unlike = [
        f"{name} {was[name]} instead of {now[name]}" for name in now if was[name] != now[name]
    ]
    if unlike:
        raise UserError(
            f"--init_weights {path} has {', '.join(unlike)}: give the options that it was trained "
            "with (--sampling_times, --ngf, --clinical2micronetG, --norm, --skip, --texture_noise)"
        )
    if loaded.generator.texture is not None and model.G_A.texture is None:
        say(f"the texture layers of {path} are left out: --preset texture trains with them")
    if loaded.spread != 1 and model.G_A.texture is not None:
        say(
            f"{path} states a factor of {loaded.spread:g} on the spread of its draws, which new "
            "texture need not have: python -m benchmarks.dial measures it"
        )
    given, own = loaded.generator.state_dict(), model.G_A.state_dict()
    weights = {name: given.get(name, weight) for name, weight in own.items()}
    model.G_A.load_state_dict(weights)
    if model.average is not None:
        model.average.network.load_state_dict(weights)
    return loaded


def load_teacher(path: str, scale: int) -> LoadedGenerator:
    """The SR generator that --teacher names.

    Raises:
        UserError: it cannot be read, or enlarges by another scale.
    """
    loaded = load_generator(Path(path))
    generator = loaded.generator
    if generator.scale != scale:
        raise UserError(
            f"--teacher {path} enlarges {generator.scale} times, expected {scale} times as the "
            "model that it teaches: give other weights, or another --sampling_times"
        )
    return loaded


def check_teacher(
    teacher: LoadedGenerator, windows: WindowPolicy, say: Callable[[str], None]
) -> None:
    """Refuse a teacher that knows tissue by other values: all that it says would be wrong.

    Raises:
        UserError: its window of clinical CT is another one. Where it states none, `say` tells.
    """
    if unlike := unlike_windows(teacher.windows, windows.as_dict()):
        raise UserError(
            f"the weights of --teacher {teacher.origin} {unlike}: give the --windows and "
            "--normalization that they were made for"
        )
    if teacher.windows is None:
        say(f"--teacher {teacher.origin} states no intensity windows: taken for those of this run")


def unlike_windows(weights: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """In words, by which other values than this run's given weights know tissue; None for none.

    Micro-CT has units of its own at each scanner, so only the windows of clinical CT are compared.

    Args:
        weights: windows as `WindowPolicy.as_dict` tells them; None if nobody knows.
        now: those of the run.
    """
    if weights is None or "clinical" not in weights:
        return None
    before, after = (
        "each volume's range"
        if windows["normalization"] == "minmax"
        else "{low:g}:{high:g} HU".format(**windows["clinical"])
        for windows in (weights, now)
    )
    if before == after:
        return None
    return f"were made for clinical CT in {before}, got {after}"
