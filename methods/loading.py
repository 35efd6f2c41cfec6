"""What every test method starts with: the model and its windows."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

from data.windows import (
    CLINICAL_WINDOW,
    IntensityWindow,
    Normalization,
    WindowPolicy,
    parse_windows,
)
from models.checkpoints.checkpoint import LoadedGenerator, load_generator
from models.checkpoints.experiment_folder import LAST_FILE, checkpoint_path, last_experiment
from models.checkpoints.shipped_weights import shipped_weights
from models.inference.super_resolver import SuperResolver
from util.devices import choose_devices, warn_of_emulated_bf16
from util.disk.cache_folder import default_cache_dir
from util.errors import UserError

DEFAULT_TIMES = 3  # n of the weights that are taken before any training: 8x, as train.py's default


@dataclass(frozen=True)
class LoadedModel:
    """A generator ready to run, with its checkpoint's facts and the windows to use."""

    loaded: LoadedGenerator
    resolver: SuperResolver
    windows: WindowPolicy
    norm_scope: str
    lung_statistics: bool

    def facts(self) -> dict[str, object]:
        """What a run record says about the model and how it runs."""
        return {
            "checkpoint": str(self.loaded.origin),
            "checkpoint_step": self.loaded.step,
            "weights": self.loaded.digest,
            "scale": self.scale,
            "backend": self.resolver.backend,
            "precision": self.resolver.precision,
            "norm_scope": self.norm_scope,
            "norm_pixels": "lung" if self.lung_statistics else "all",
        }

    @property
    def scale(self) -> int:
        """In-plane enlargement 2^n."""
        return self.resolver.scale


def load_model(options: Namespace) -> LoadedModel:
    """Load the model that the options name, by default the one trained last.

    Raises:
        UserError: no such model, a scale it was not trained for, or windows that are missing.
    """
    path = Path(options.checkpoint) if options.checkpoint else trained_or_shipped(options)
    loaded = load_generator(path)
    scale = loaded.generator.scale
    if options.sampling_times is not None and 2**options.sampling_times != scale:
        raise UserError(
            f"{path} enlarges {scale} times, got --sampling_times {options.sampling_times} "
            f"({2**options.sampling_times} times): leave it out or give another checkpoint"
        )
    scope, from_lung = norm_pixels(loaded, options)
    backend = options.backend
    if scope == "volume":
        if backend == "openvino":
            raise UserError(
                "--backend openvino cannot take --norm_scope volume: leave --backend out, torch can"
            )
        backend = "torch"
    devices = choose_devices(options.gpu_ids)
    device = devices[int(os.environ.get("LOCAL_RANK", "0")) % len(devices)]
    if options.precision == "bf16":
        warn_of_emulated_bf16(device)
    asked = [f"--{name}" for name in ("texture", "samples") if getattr(options, name)]
    if asked and loaded.generator.texture is None:
        raise UserError(
            f"{path} has no texture layers, only its best estimate: take weights that have them "
            f"(weights/sr_x8.safetensors, or trained by --preset texture), or leave {asked[0]} out"
        )
    resolver = SuperResolver(
        loaded.generator,
        device,
        options.precision,
        options.patch_size,
        backend,
        None if options.max_memory is None else int(options.max_memory * 1e9),
        options.compile,
        Path(options.cache_dir) if options.cache_dir else default_cache_dir(),
        options.texture,
        loaded.spread,
    )
    windows = choose_test_windows(loaded, options)
    step = "bare weights" if loaded.step is None else f"step {loaded.step}"
    pixels = " of the lung" if scope == "volume" and from_lung else ""
    print(
        f"model {path} ({step}), {scale}x, on {device} with {resolver.backend} in "
        f"{options.precision}, {windows.normalization} normalization, "
        + ("no norm statistics" if scope == "none" else f"norm statistics of the {scope}{pixels}")
    )
    return LoadedModel(loaded, resolver, windows, scope, from_lung)


def trained_or_shipped(options: Namespace) -> Path:
    """The user's own model, by default the one trained last; before any training the project's.

    Raises:
        UserError: nothing was trained, and no weights come with the project for that scale.
    """
    root = Path(options.checkpoints_dir)
    chosen = options.name or options.epoch != "latest" or options.load_iter
    if not chosen and not (root / LAST_FILE).is_file():
        shipped = shipped_weights(2 ** (options.sampling_times or DEFAULT_TIMES))
        if shipped is not None:
            print(
                f"nothing was trained in {root} yet: using the weights that come with the project"
            )
            return shipped
    folder = root / (options.name or last_experiment(root))
    return checkpoint_path(folder, options.epoch, options.load_iter)


def norm_pixels(loaded: LoadedGenerator, options: Namespace) -> tuple[str, bool]:
    """The norm scope, and whether its statistics are to come from the lung alone.

    As the network knows them from training: patches of unpaired training lie wholly inside the
    lung, those of the public setting show all of the chest (docs/results.md has both measured).
    Bare weights do not say, so they run as published, on all that they are given. Networks without
    instance norm take no statistics.

    Raises:
        UserError: a scope for such a network.
    """
    norm = str(loaded.generator.architecture["norm"])
    if norm != "instance" and options.norm_scope != "patch":
        if options.norm_scope:
            raise UserError(
                f"{loaded.origin} has {norm if norm != 'none' else 'no'} norm, which takes no "
                f"statistics from the image: leave --norm_scope {options.norm_scope} out"
            )
        return "none", False
    inside = loaded.options.get("dataset_mode") == "unpaired" and options.region == "lung"
    scope = options.norm_scope or ("lung" if inside else "slice")
    return scope, scope == "lung" or (scope == "volume" and inside)


def choose_test_windows(loaded: LoadedGenerator, options: Namespace) -> WindowPolicy:
    """The checkpoint's windows, with what the command line overrides.

    Bare weights bring none: the original code, which writes such files, scaled each volume by its
    own range, so that is the default for them.
    """
    if loaded.windows is not None:
        policy = WindowPolicy.from_dict(loaded.windows)
    else:
        # The micro window is only a placeholder: minmax never looks at it.
        normalization: Normalization = "window" if options.windows else "minmax"
        policy = WindowPolicy(normalization, CLINICAL_WINDOW, IntensityWindow(0.0, 15000.0))
        words = f"using {options.normalization or normalization} normalization"
        print(f"{loaded.origin} states no intensity windows: {words}")
    tested = "micro" if options.method == "microCTsmallpatchtest" else "clinical"
    given = parse_windows(options.windows or [])
    for domain in given:
        if domain != tested:
            raise UserError(
                f"--windows {domain}=... has no effect with --method {options.method}, which "
                f"reads {tested} volumes: leave it out"
            )
    # Bare weights and models of the public setting know nothing of micro-CT's units.
    unknown = loaded.windows is None or loaded.options.get("dataset_mode") == "public_2D"
    if tested == "micro" and unknown and not given and policy.normalization == "window":
        raise UserError(
            f"{loaded.origin} states no window for micro-CT: give --windows micro=LOW:HIGH"
        )
    for domain, window in given.items():
        if window is None:
            raise UserError(
                f"--windows {domain}=auto measures training volumes; give {domain}=LOW:HIGH here"
            )
        if domain == "clinical":
            policy = replace(policy, clinical=window)
        else:
            policy = replace(policy, micro=window)
    if options.normalization == "public":
        clinical, micro = (
            replace(window, unit_low=0.0) for window in (policy.clinical, policy.micro)
        )
        policy = WindowPolicy("window", clinical, micro)
    elif options.normalization:
        policy = replace(policy, normalization=options.normalization)
    if options.windows and policy.normalization == "minmax":
        raise UserError(
            f"{loaded.origin} was trained with minmax normalization, where --windows has no "
            "effect: leave it out or give --normalization window as well"
        )
    return policy
