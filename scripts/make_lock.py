"""Write requirements.lock: exact versions of everything, for every supported Python.

Usage: `python scripts/make_lock.py` (needs a package index). pip resolves requirements.txt and
requirements-dev.txt for each Python; versions that differ between them get an environment marker.
What torch pins itself (the CUDA libraries, triton) is left to torch, so that one lock serves
machines with and without CUDA. visdom has no wheel below 0.3 and 0.3 needs Python 3.12, so it is
pinned by hand here and built by scripts/env.sh.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PINNED = ("torch==2.14.1",)
PINNED_BY_TORCH = ("nvidia-", "cuda-", "triton")
VISDOM = (
    'visdom==0.2.4 ; python_version < "3.12"',
    'visdom==0.3.0 ; python_version >= "3.12"',
)
# visdom's own requirements, which pip cannot see without building it.
# networkx 3.5 gave up Python 3.10, which an index without that fact does not tell pip.
VISDOM_NEEDS = ("jsonpatch", "networkx<3.5", "requests", "six", "tornado", "websocket-client")

# Not resolved here: see above, and VIEWER in scripts/env.sh.
APART = ("visdom", "ipyniivue")
# Releases that gave up a Python without the index saying so: name -> Python -> version instead.
OVERRIDES = {"tifffile": {"3.10": "2025.5.10"}}


def wanted() -> list[str]:
    """Requirement lines of both files without comments and what is installed apart."""
    lines = []
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", *APART)):
                lines.append(line)
    return [*lines, *PINNED, *VISDOM_NEEDS]


def resolve(python: str) -> dict[str, str]:
    """Name -> version of everything that pip would install for one Python."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-q"]
        command += ["--report", str(report), "--python-version", python]
        command += ["--only-binary=:all:", "--target", folder, *wanted()]
        subprocess.run(command, check=True)
        entries = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {entry["metadata"]["name"].lower(): entry["metadata"]["version"] for entry in entries}
    return {
        name: version for name, version in found.items() if not name.startswith(PINNED_BY_TORCH)
    }


def marker(pythons: list[str]) -> str:
    """Environment marker for these Pythons, a run of neighbours; empty for all of them."""
    if tuple(pythons) == PYTHONS:
        return ""
    parts = []
    if pythons[0] != PYTHONS[0]:
        parts.append(f'python_version >= "{pythons[0]}"')
    if pythons[-1] != PYTHONS[-1]:
        parts.append(f'python_version <= "{pythons[-1]}"')
    return " ; " + " and ".join(parts)


def main() -> None:
    """Resolve for every Python and write the lock."""
    versions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for python in PYTHONS:
        for name, version in resolve(python).items():
            chosen = OVERRIDES.get(name, {}).get(python, version)
            versions[name][chosen].append(python)
    lines = ["# Written by scripts/make_lock.py; installed by scripts/env.sh."]
    for name in sorted(versions):
        lines += [f"{name}=={v}{marker(pythons)}" for v, pythons in versions[name].items()]
    lines += VISDOM
    (ROOT / "requirements.lock").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
