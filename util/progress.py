"""Progress bars with a rate and a remaining time, that do not flood a log file; bytes and seconds
in words."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

TERMINAL_INTERVAL = 0.2  # seconds between two drawings
LOG_INTERVAL = 30.0  # the same where each drawing stays: a batch job's log, CI

BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def progress(
    items: Iterable[Item],
    description: str,
    unit: str = "it",
    total: int | None = None,
    initial: int = 0,
    hidden: bool = False,
) -> tqdm[Item]:
    """Wrap `items` in a bar on standard error: done, total, rate, remaining time.

    Args:
        items: what is worked through.
        description: stands before the bar.
        unit: name of one item, for the rate ("slice", "patch").
        total: number of items where `len(items)` is not known.
        initial: how many of them were done before; they do not count in the rate.
        hidden: draw nothing, where another process does.
    """
    interval = TERMINAL_INTERVAL if sys.stderr.isatty() else LOG_INTERVAL
    return tqdm(
        items,
        desc=description,
        unit=unit,
        total=total,
        initial=initial,
        file=sys.stderr,
        mininterval=interval,
        # tqdm's monitor would otherwise draw every 10 s whatever `mininterval` says.
        maxinterval=max(interval, 10.0),
        dynamic_ncols=True,
        disable=hidden,
    )


def format_bytes(count: float) -> str:
    """Such as 10.1 GB (powers of 1000)."""
    for unit in BYTE_UNITS:
        if count < 1000 or unit == BYTE_UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def format_seconds(seconds: float) -> str:
    """Such as 45 s, 12 min, 3.5 h or 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
