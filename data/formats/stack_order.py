"""The order of a stack's files, by the number that tells them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from util.errors import UserError

# A minus stands where a number begins: at the start, or behind what is neither letter nor digit.
# Behind a letter or a digit it only separates, as in lung-0001.
NUMBER = re.compile(r"(?:(?<![a-z0-9])-)?[0-9]+")
DECIMAL = re.compile(r"(?<![0-9.])(?:(?<![a-z0-9])-)?[0-9]+\.[0-9]+(?![0-9]*\.?[0-9])")


def order_by_number(files: Sequence[Path], folder: Path) -> list[Path]:
    """Sort slices by the number in their names: `rec_9.tif` before `rec_10.tif`.

    The slice number is the number that differs from file to file; others (a date, a sample's
    number) may stand in the name as well. Where several differ, decimal ones among them, those that
    count in equal steps have to give one order, or all if none does.

    Raises:
        UserError: names of several series, no single slice number, two orders, or a missing number.
    """
    if len(files) < 2:
        return list(files)
    patterns = {NUMBER.sub("#", path.name.lower()): path.name for path in files}
    if len(patterns) > 1:
        one, other, *_ = patterns.values()
        raise UserError(
            f"folder {folder} holds names of different kinds ({one}, {other}): "
            "give a folder with the slices of one stack, named alike but for a number"
        )
    decimals = _decimals(files)
    names = [path.name.lower() for path in files]
    rows = [
        [int(number) for number in NUMBER.findall(DECIMAL.sub("", name) if decimals else name)]
        for name in names
    ]
    columns = [list(column) for column in zip(*rows, strict=True) if len(set(column)) == len(files)]
    if decimals:
        columns.append(decimals)
    if not columns:
        raise UserError(
            f"folder {folder}: no number in the names tells the slices apart "
            f"({files[0].name}, {files[1].name}): number the slices of one stack"
        )
    regular = [column for column in columns if _missing(column) is None]
    orders = [_sorted(column, files) for column in regular or columns]
    for order in orders[1:]:
        if order != orders[0]:
            raise UserError(
                f"folder {folder} has two numbers in its names that give two orders: "
                f"{_shown(orders[0])} or {_shown(order)}: leave one number that counts the slices"
            )
    numbers = (regular or columns)[-1]
    if missing := _missing(numbers):
        before, number, after = missing
        named = dict(zip(numbers, files, strict=True))
        raise UserError(
            f"folder {folder}: {'a slice' if decimals else f'slice number {number}'} is missing "
            f"between {named[before].name} and {named[after].name}: add it, or renumber the slices"
        )
    refuse_doubtful_minus(orders[0], folder)
    return orders[0]


def _decimals(files: Sequence[Path]) -> list[int] | None:
    """Decimal numbers that tell files apart (z_-0.25, z_0.5), as whole numbers of their last digit;
    None where names hold none, or a counter behind a point (scan1.9, scan1.10)."""
    found = [DECIMAL.findall(path.stem.lower()) for path in files]
    if not all(len(one) == 1 for one in found):
        return None
    words = [one[0] for one in found]
    wholes, parts = zip(*(word.split(".") for word in words), strict=True)
    if len(set(wholes)) == 1 and not wholes[0].startswith("-"):
        return None  # a counter behind one number
    digits = max(map(len, parts))
    numbers = [int(f"{whole}{part:0<{digits}}") for whole, part in zip(wholes, parts, strict=True)]
    return numbers if len(set(numbers)) == len(files) else None


def refuse_doubtful_minus(ordered: Sequence[Path], folder: Path) -> None:
    """Refuse names such as z-30, z-20, z-10, where a minus may be a sign or a hyphen.

    It is a hyphen where numbers have leading zeros or count from 0 or 1 on. Behind a blank or a low
    line it is a sign, but for numbers with leading zeros that are all below 0.

    Args:
        ordered: files in the order of their numbers, hyphens taken for hyphens.
        folder: of the message.

    Raises:
        UserError: with both orders.
    """
    stems = [DECIMAL.sub("", path.stem.lower()) for path in ordered]  # whose minus is a sign
    apart = [re.findall(r"[ _]-([0-9]+)", stem) for stem in stems]
    if all(apart) and any(numbers[-1].startswith("0") for numbers in apart):
        raise _doubtful(ordered, folder)
    found = [re.findall(r"(?<=[a-z])-([0-9]+)", stem) for stem in stems]
    if not all(found):
        return
    words = [numbers[-1] for numbers in found]
    padded = any(len(word) > 1 and word[0] == "0" for word in words)
    if padded or len(set(words)) < len(words) or min(map(int, words)) <= 1:
        return
    raise _doubtful(ordered, folder)


def _doubtful(ordered: Sequence[Path], folder: Path) -> UserError:
    return UserError(
        f"folder {folder} has a minus before the numbers in its names, which may be a sign: "
        f"{_shown(ordered)} or {_shown(list(reversed(ordered)))}: number the slices from 0 on"
    )


def _sorted(numbers: Sequence[int], files: Sequence[Path]) -> list[Path]:
    return [path for _, path in sorted(zip(numbers, files, strict=True))]


def _shown(files: Sequence[Path]) -> str:
    names = [path.name for path in files]
    return ", ".join(names if len(names) < 4 else [*names[:2], "..", names[-1]])


def _missing(numbers: Sequence[int]) -> tuple[int, int, int] | None:
    """First gap in a series of numbers of constant step: (before, missing, after)."""
    ordered = sorted(numbers)
    steps = [after - before for before, after in pairwise(ordered)]
    usual = min(Counter(steps).items(), key=lambda item: (-item[1], item[0]))[0]
    for before, after in pairwise(ordered):
        if after - before != usual:
            return before, before + usual, after
    return None
