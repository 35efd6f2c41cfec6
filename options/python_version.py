"""One clear line for a Python that the code cannot run on, before anything else is imported."""

from __future__ import annotations

import sys

OLDEST, NEWEST = (3, 10), (3, 13)


def refuse_other_pythons() -> None:
    """Leave with exit code 2 under a Python that is too old; a newer one than known may work."""
    if sys.version_info[:2] >= OLDEST:
        return
    found = ".".join(str(part) for part in sys.version_info[:3])
    known = " to ".join(".".join(str(part) for part in one) for one in (OLDEST, NEWEST))
    print(
        f"error: this is Python {found} ({sys.executable}), expected {known}: bash run.sh finds "
        "one and makes .venv with it",
        file=sys.stderr,
    )
    raise SystemExit(2)
