"""The files of a TIFF-stack folder in the order of their slice numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from data.volumes.names import TIFF_ENDINGS, ending_of, is_mask_name, natural_key
from util.errors import UserError


def tiff_files(folder: Path) -> list[Path]:
    """TIFF files directly inside a folder in natural order, hidden files and masks left out."""
    return sorted(
        (
            path
            for path in folder.iterdir()
            if ending_of(path) in TIFF_ENDINGS
            and not path.name.startswith(".")
            and not is_mask_name(path)
            and path.is_file()
        ),
        key=lambda path: natural_key(path.name),
    )


def order_by_number(files: Sequence[Path], folder: Path) -> list[Path]:
    """Sort slices by the number in their names: `rec_9.tif` before `rec_10.tif`.

    The slice number is the number that differs from file to file; others (a date, a sample's
    number) may stand in the name as well.

    Raises:
        UserError: names of several series, no single slice number, or a missing number.
    """
    if len(files) < 2:
        return list(files)
    patterns = {re.sub(r"[0-9]+", "#", path.name.lower()): path.name for path in files}
    if len(patterns) > 1:
        one, other, *_ = patterns.values()
        raise UserError(
            f"TIFF folder {folder} holds names of different kinds ({one}, {other}): "
            "give a folder with the slices of one stack, named alike but for a number"
        )
    rows = [[int(number) for number in re.findall(r"[0-9]+", path.name)] for path in files]
    columns = [list(column) for column in zip(*rows, strict=True) if len(set(column)) == len(files)]
    if not columns:
        raise UserError(
            f"TIFF folder {folder}: no number in the names tells the slices apart "
            f"({files[0].name}, {files[1].name}): number the slices of one stack"
        )
    regular = [column for column in columns if not _missing(column)]
    numbers = regular[-1] if regular else columns[-1]
    ordered = [path for _, path in sorted(zip(numbers, files, strict=True))]
    missing = _missing(numbers)
    if missing:
        before, number, after = missing
        names = dict(zip(numbers, files, strict=True))
        raise UserError(
            f"TIFF folder {folder}: slice number {number} is missing between "
            f"{names[before].name} and {names[after].name}: add it, or renumber the slices"
        )
    return ordered


def _missing(numbers: Sequence[int]) -> tuple[int, int, int] | None:
    """First gap in a series of numbers of constant step: (before, missing, after)."""
    ordered = sorted(numbers)
    steps = [after - before for before, after in pairwise(ordered)]
    usual = min(Counter(steps).items(), key=lambda item: (-item[1], item[0]))[0]
    for before, after in pairwise(ordered):
        if after - before != usual:
            return before, before + usual, after
    return None
