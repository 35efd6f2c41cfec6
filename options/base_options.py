"""Options shared by training and testing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from options.presets import ListChoices

PHANTOM_FOLDER = "datasets/phantom"

Row = tuple[str, Any, Any, str]
"""Name without dashes, kind, default (None is not shown) and help of an option.

The kind is FLAG for one without a value, a sequence of choices, what parses a word, or `Shown`.
"""
Rows = Sequence[Row]
FLAG = None
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default behind each help text, except where there is none to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or not action.help:
            return action.help
        return super()._get_help_string(action)


MOST = 2**32 - 1  # what a seed of numpy may be
MOST_CHANNELS = 1 << 16
MOST_LAYERS = 16
LARGEST = 1e30  # float32 ends at 3e38
LARGEST_MEASURE = 1000.0


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where help is, then leave with exit code 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    return whole_within(text, 1)


def whole_number(text: str) -> int:
    """Parse a whole number of at least 0."""
    return whole_within(text, 0)


def channels(text: str) -> int:
    """Parse a number of channels."""
    return whole_within(text, 1, MOST_CHANNELS)


def layers(text: str) -> int:
    """Parse a number of layers, each of which halves the image."""
    return whole_within(text, 1, MOST_LAYERS)


def whole_within(text: str, least: int, most: int = MOST) -> int:
    """Parse a whole number of a range."""
    value = int(text)
    if not least <= value <= most:
        bound = f"of at least {least}" if value < least else f"up to {most}"
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number {bound}")
    return value


def positive_float(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not 0 < value <= LARGEST:
        raise argparse.ArgumentTypeError(
            f"got {text}, expected a number above 0 and up to {LARGEST:g}"
        )
    return value


def non_negative_float(text: str) -> float:
    """Parse a number of at least 0."""
    return float_within(text, LARGEST)


def measure(text: str) -> float:
    """Parse a number of pixels, or on the scale of [-1, 1]."""
    return float_within(text, LARGEST_MEASURE)


def float_within(text: str, most: float) -> float:
    """Parse a number from 0 to `most`."""
    value = float(text)
    if not 0 <= value <= most:
        bound = f"up to {most:g}" if value > most else "of at least 0"
        raise argparse.ArgumentTypeError(f"got {text}, expected a number {bound}")
    return value


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number from 0 to 1")
    return value


class Shown(NamedTuple):
    """The kind of an option whose value has a name in --help; `several` words make a list."""

    name: str
    parse: Callable[[str], Any] = str
    several: bool = False


# fmt: off
RUN: Rows = (
    ("dry_run", FLAG, False,
     "say what would be done, with sizes and a measured guess of the time, and leave"),
    ("name", str, None, "name of the experiment: its folder in checkpoints_dir"),
    ("checkpoints_dir", str, "checkpoints", "folder of all experiments"),
    ("gpu_ids", str, "all",
     "GPUs, such as 0 or 0,1; all: every one found, else the CPU; -1: the CPU"),
    ("precision", PRECISIONS, "fp32",
     "bf16 computes convolutions and keeps maps in 16 bits: faster where the processor has it; on "
     "a GPU also tf32, fp32 with rounded products, and in testing fp16"),
    ("epoch", str, "latest",
     "checkpoint to load: latest, best (by validation) or an epoch's number"),
    ("load_iter", whole_number, 0,
     "load the checkpoint of this step (made with --save_by_iter) instead of --epoch"),
    ("cache_dir", str, None,
     "folder for unpacked volumes and lung masks (else $SR_CYCLEGAN_CACHE, else sr_cyclegan in "
     "$XDG_CACHE_HOME or ~/.cache)"),
    ("keep_identity", FLAG, False,
     "leave the patient's name, ID, birth date and institution in records, pages and pictures, "
     "where DICOM states them and a path holds them"),
    ("debug", FLAG, False, "show the traceback of an error as well"),
)
VOLUMES: Rows = (
    ("maskdatafolder", str, None,
     "folder of lung masks, CASE_mask.nii.gz or CASE.nii.gz for a CT called CASE (any format); "
     "without it a mask beside the CT is taken, else one is computed"),
    ("micro_spacing", Shown("MM", float, several=True), None,
     "voxel size of TIFF volumes, pictures and Zarr in mm: one number, or x y z (they often state "
     "none)"),
    ("slices", Shown("START:STOP"), None,
     "use only these slices of every volume, as Python counts (0:100, -20:)"),
    ("windows", Shown("DOMAIN=LOW:HIGH", several=True), None,
     "intensity windows mapped to [-1, 1], such as clinical=-1000:500 micro=0:255; micro=auto "
     "takes the 0.1 and 99.9 percentiles of the training volumes"),
    ("degradation", ("area", "zoom"), "area",
     "how micro-CT is shrunk: area average, or the published unfiltered cubic zoom, which "
     "aliases and drifts"),
)
# fmt: on


def add_options(group: argparse._ArgumentGroup, rows: Rows) -> None:
    """Add options to a group of --help."""
    for name, kind, default, text in rows:
        settings: dict[str, Any] = {"default": default, "help": text}
        if kind is FLAG:
            settings["action"] = "store_true"
        elif isinstance(kind, Shown):
            settings |= {"metavar": kind.name, "type": kind.parse}
            settings |= {"nargs": "+"} if kind.several else {}
        elif callable(kind):
            settings["type"] = kind
        else:
            settings |= {"choices": kind, "type": type(kind[0])}
        group.add_argument(f"--{name}", **settings)


class BaseOptions:
    """Builds the parser of the shared options; subclasses add theirs and check the result."""

    program = "options"
    description = ""
    epilog: str | None = None
    groups: Mapping[str, Rows] = {}  # options of the subclass, by their title in --help

    def build(self) -> argparse.ArgumentParser:
        """Return the parser with every option of this script."""
        parser = OneLineParser(
            prog=self.program,
            description=self.description,
            epilog=self.epilog,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        group = parser.add_argument_group("run")
        group.add_argument(
            "--list", action=ListChoices, help="show models, data, presets and methods, and leave"
        )
        add_options(group, RUN)
        for title, rows in {"volumes": VOLUMES, **self.groups}.items():
            add_options(parser.add_argument_group(title), rows)
        return parser

    def check(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        """Refuse values that are wrong whatever the script (exit code 2 with the fix)."""
        spacing = options.micro_spacing
        if spacing is not None:
            if len(spacing) not in (1, 3) or not all(0 < edge < float("inf") for edge in spacing):
                parser.error(
                    f"--micro_spacing is {spacing}, expected one positive number or three (x y z)"
                )
            options.micro_spacing = tuple(spacing * 3 if len(spacing) == 1 else spacing)
        named = options.epoch in ("latest", "best")
        if not named and not (options.epoch.isdigit() and int(options.epoch) > 0):
            parser.error(f"--epoch is {options.epoch!r}, expected latest, best or a number from 1")
        words = options.gpu_ids.split(",")
        if options.gpu_ids not in ("all", "-1") and not all(word.isdigit() for word in words):
            parser.error(f"--gpu_ids is {options.gpu_ids!r}, expected all, -1 or numbers as in 0,1")


def join_slices(arguments: Sequence[str]) -> list[str]:
    """Join `--slices -10:` into one word, since argparse takes `-10:` for a flag."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] in ("--slices", "--val_slices"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def format_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """One line an option, alphabetical; those that differ from the parser's default are marked."""
    lines = []
    for name, value in sorted(vars(options).items()):
        default = parser.get_default(name)
        note = "" if value == default else f"   [default: {default}]"
        lines.append(f"{name:>24}: {value}{note}")
    return "\n".join(lines)


def refuse_empty(
    parser: argparse.ArgumentParser, options: argparse.Namespace, given: set[str]
) -> None:
    """Refuse an option without a word, as `--checkpoint "$W"` gives where W is not set: what is
    taken without the option would be taken in silence."""
    for name in sorted(given - {"suffix", "input"}):
        value = getattr(options, name)
        if value == "" or (isinstance(value, list) and "" in value):
            parser.error(
                f'--{name} is "", as by a variable that is not set: give a value, or leave it out'
            )


def given_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> set[str]:
    """Names of the options that stand on the command line themselves."""
    words = {argument.split("=", 1)[0] for argument in arguments if argument.startswith("--")}
    return {action.dest for action in parser._actions if words.intersection(action.option_strings)}
