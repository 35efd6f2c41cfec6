"""Options of train.py."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

from options.base_options import BaseOptions, given_names, join_slices, refuse_empty
from options.presets import FROM_SCRATCH, X4_DEFAULTS, preset_values
from options.train_checks import (
    FOUND_BY_AUTO,
    check_identity,
    check_losses,
    check_patches,
    check_scanner,
    check_validation,
    refuse_idle_options,
    refuse_other_pairs,
    refuse_restart,
    refuse_start_options,
)
from options.train_groups import TRAIN_GROUPS

# Options that belong to one call, not to the experiment.
PER_CALL_OPTIONS = frozenset(
    {
        "continue_train",
        "overwrite",
        "summary",
        "dry_run",
        "epoch",
        "load_iter",
        "checkpoints_dir",
        "gpu_ids",
        "debug",
    }
)

NONE = "none"
MOST_THREADS = 256
LONGEST_NAME = 200  # bytes of a folder's name: file systems allow 255


class TrainOptions(BaseOptions):
    """Every option of train.py with type, default, unit and reason."""

    program = "train.py"
    description = (
        "Train SR-CycleGAN without paired images. Without any data option the digital lung "
        "phantom is generated on first use and trained on."
    )

    groups = TRAIN_GROUPS
    epilog = (
        "A run that goes on keeps its options. What was given is taken back by `none` where there "
        "is no default (--patience none), and by the opposite of a flag (--flip, --no_tensorboard)."
    )

    def build(self) -> argparse.ArgumentParser:
        """Return the parser with every option, and what takes one back that a resumed run has."""
        parser = super().build()
        for action in list(parser._actions):
            if action.dest in PER_CALL_OPTIONS | {"name", "help", "list"}:
                continue
            if action.const is True:
                parser.add_argument(
                    f"--{opposite(action.dest)}",
                    dest=action.dest,
                    action="store_false",
                    default=argparse.SUPPRESS,
                    help=argparse.SUPPRESS,
                )
            elif action.choices is not None:
                action.choices = [*action.choices, *[NONE] * (action.default is None)]
            elif action.default is None:
                action.type = or_none(action.type)  # type: ignore[arg-type]
        return parser

    def parse(
        self, arguments: Sequence[str], count_gpus: Callable[[], int]
    ) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
        """Parse a command line, apply model and preset, fill in what follows, refuse nonsense.

        Args:
            arguments: command-line words without the program's name.
            count_gpus: how many CUDA devices there are; called only once the words are known to
                be good, so that --help and a wrong flag answer at once.

        Returns:
            The options and their parser (for printing what differs from the defaults). Exits
            with code 2 on contradictory values, naming the fix.
        """
        arguments = join_slices(arguments)
        parser = self.build()
        options = parser.parse_args(arguments)
        given = given_names(parser, arguments)
        for name in given:
            # Of an option that takes several words, and of one that has choices.
            value, default = getattr(options, name), parser.get_default(name)
            if isinstance(value, list) and None in value and len(value) > 1:
                parser.error(f"--{name} has none among other words: give none alone, or leave it")
            if name != "name" and default is None and value in ([None], NONE):
                setattr(options, name, None)
        refuse_empty(parser, options, given)
        refuse_restart(parser, options, given)
        stored = stored_options(parser, options) if options.continue_train else None
        if stored is not None:
            kept_out = given | PER_CALL_OPTIONS
            if stored.get("scanner") == "auto" and "scanner" in given:
                kept_out |= set(FOUND_BY_AUTO)  # of the scanner that was found
            for name, value in stored.items():
                if name in vars(options) and name not in kept_out:
                    setattr(options, name, value)
            sizes = {"clinical_patch_size", "micro_patch_size"}
            for name in sizes - given if sizes & given else ():
                setattr(options, name, None)  # it follows from the other one
            if "val_slices" in given and "slices" not in given:
                options.slices = None  # it follows from the new choice
            refuse_start_options(parser, options, given, stored)
            refuse_other_pairs(parser, stored, given)
            refuse_idle_options(parser, options, acting(options, given))
            self.check(parser, options)
            return options, parser
        if options.preset == "auto":
            on_cpu = options.gpu_ids == "-1" or count_gpus() == 0
            options.preset = "demo" if on_cpu else "adapt"
        derived: dict[str, object] = {}
        if options.dataset_mode == "public_2D" and not given & {"model", "sampling_times"}:
            options.model = "medical_cycle_ganx4"  # the public setting is published at 4x
        if options.model == "medical_cycle_ganx4":
            derived.update(X4_DEFAULTS)
        if options.from_scratch and options.preset not in FROM_SCRATCH:
            parser.error(
                f"--from_scratch is about --preset {' and '.join(FROM_SCRATCH)}, got "
                f"{options.preset}, which starts from random weights anyway: leave it out"
            )
        times = 2 if options.model == "medical_cycle_ganx4" else options.sampling_times
        stated = {name: getattr(options, name) for name in given}
        derived.update(preset_values(options.preset, times, stated, options.from_scratch))
        for name, value in derived.items():
            if name not in given:
                setattr(options, name, value)
        refuse_idle_options(parser, options, acting(options, given))
        self.check(parser, options)
        return options, parser

    def check(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        """Fill in patch sizes and the name, and refuse contradictory values with the fix."""
        super().check(parser, options)
        scale = 2**options.sampling_times
        if options.model == "medical_cycle_ganx4" and scale != 4:
            parser.error(
                f"--model medical_cycle_ganx4 is the 4x setting, got --sampling_times "
                f"{options.sampling_times}: leave it out or take --model medical_cycle_gan"
            )
        check_patches(parser, options, scale)
        check_identity(parser, options)
        check_losses(parser, options)
        check_scanner(parser, options)
        check_validation(parser, options)
        if options.ngf % scale:
            parser.error(f"--ngf is {options.ngf}, expected a multiple of the scale {scale}")
        if options.ema == 1:
            parser.error("--ema is 1, expected less, such as 0.999: at 1 nothing is ever learned")
        if options.beta1 == 1:
            parser.error("--beta1 is 1, expected less, such as 0.5: at 1 Adam never moves")
        if options.num_threads > MOST_THREADS:
            parser.error(
                f"--num_threads is {options.num_threads}, expected {MOST_THREADS} at the most: "
                "each is a process that loads data"
            )
        if options.ssim_data_range <= 0:
            parser.error("--ssim_data_range is 0, expected 2 (or 1 as published)")
        last = options.niter + options.niter_decay
        if options.epoch_count > last:
            parser.error(
                f"--epoch_count is {options.epoch_count}, but training ends at epoch {last} "
                "(niter + niter_decay): raise --niter"
            )
        if options.dataset_mode == "public_2D" and (
            options.micro_folder or options.all_micro_paths
        ):
            parser.error(
                "--dataset_mode public_2D trains on clinical CT alone: leave the micro-CT paths "
                "out or take --dataset_mode unpaired"
            )
        options.name = options.name or default_name(options.model, scale)
        try:
            options.name += options.suffix.format(**vars(options))
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            parser.error(
                f"--suffix is {options.suffix!r}, which cannot be filled in ({error}): expected "
                "names of options, such as _ngf{ngf}"
            )
        options.suffix = ""  # spent: a resumed run must not append it again
        if "/" in options.name or options.name in (".", ".."):
            parser.error(f"--name is {options.name!r}, expected a plain folder name")
        if len(os.fsencode(options.name)) > LONGEST_NAME:
            parser.error(
                f"--name has {len(os.fsencode(options.name))} letters, expected {LONGEST_NAME} at "
                "the most, as folders have"
            )


def opposite(flag: str) -> str:
    """Name of the flag that takes another one back: no_flip -> flip, compile -> no_compile."""
    return flag.removeprefix("no_") if flag.startswith("no_") else f"no_{flag}"


def acting(options: argparse.Namespace, given: set[str]) -> set[str]:
    """Given options but for those that were taken back, which may be without effect."""
    values = vars(options)
    return {name for name in given if not (values[name] is None or values[name] is False)}


def or_none(parse: Callable[[str], object] | None) -> Callable[[str], object]:
    """`parse`, which also takes the word none."""
    original: Callable[[str], object] = parse or str

    @wraps(original)  # argparse names it in its errors
    def parsed(text: str) -> object:
        return None if text == NONE else original(text)

    return parsed


def default_name(model: str, scale: int) -> str:
    """Name of an experiment that was given none."""
    return f"{model}_x{scale}"


def stored_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> dict[str, object] | None:
    """Options kept in the experiment's folder, so that going on needs no flag repeated.

    Without --name the experiment that was trained last goes on. None where the folder keeps no
    options (weights of the original code).
    """
    root = Path(options.checkpoints_dir)
    if not options.name:
        last = root / "last_experiment.txt"
        if not last.is_file():
            parser.error(f"--continue_train: nothing has been trained in {root}: give --name")
        options.name = os.fsdecode(last.read_bytes()).strip()
    path = root / options.name / "options.json"
    if not path.is_file():
        return None
    try:
        stored: dict[str, object] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        parser.error(
            f"--continue_train: {path} cannot be read ({error}): move it away and give "
            "every option anew"
        )
    stored["name"] = options.name
    return stored
