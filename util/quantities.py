"""Bytes and seconds in words."""

from __future__ import annotations

BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


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
