"""run.json: what ran, on what, with which options, for how long, and what came out."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from util.files import write_json
from util.privacy import cleared

STATUS = Path("/proc/self/status")
PROJECT_FOLDER = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "nibabel", "tifffile", "scikit-image")
# What names nobody and stays as it is, whatever digits it holds: the machine and its programs, and
# the digests and settings that `--resume` compares.
NEVER_CLEARED = (
    *("project_version", "versions", "git_commit", "platform", "device", "device_name"),
    *("started", "determined_by"),
)
GIT_SECONDS = 10.0  # a repository on a slow network disk must not hold a run up

# This module is imported at the start of every script, so this is when the run began.
_STARTED = datetime.now(timezone.utc)


def run_record(options: Mapping[str, Any], device: str = "cpu", **facts: Any) -> dict[str, Any]:
    """Facts about the running process, for `write_run_record`.

    Args:
        options: every option of the run, defaults included.
        device: torch's name of the device that computed ("cpu", "cuda:0", "mps").
        facts: further entries (`seed=7, outputs=[...], psnr=...`); one with the name of an entry
            below replaces it.

    Returns:
        project_version, versions, git_commit (None without git; "-dirty" where files differ from
        the commit), platform, cpu_count, device, device_name, command_line, started (ISO 8601,
        UTC), duration_seconds, peak_memory_bytes (this process), peak_device_memory_bytes
        (allocated by torch on CUDA), options, and `facts`; without what identifies a patient
        (`util.privacy`), but for the names of the files that were written.
    """
    now = datetime.now(timezone.utc)
    record: dict[str, Any] = {
        "project_version": project_version(),
        "versions": {"python": platform.python_version(), **_package_versions()},
        "git_commit": git_commit(PROJECT_FOLDER),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": str(device),
        "device_name": device_name(str(device)),
        "command_line": shlex.join(sys.argv),
        "started": _STARTED.isoformat(timespec="seconds"),
        "duration_seconds": round((now - _STARTED).total_seconds(), 3),
        "peak_memory_bytes": peak_memory(),
        "peak_device_memory_bytes": _peak_device_memory(str(device)),
        "options": dict(options),
        **facts,
    }
    written = [Path(str(one)) for one in facts.get("outputs", ())]
    record = {key: one if key in NEVER_CLEARED else cleared(one) for key, one in record.items()}
    if written:
        record["outputs"] = [str(Path(cleared(str(one.parent)), one.name)) for one in written]
    return record


def write_run_record(
    path: str | Path,
    options: Mapping[str, Any],
    device: str = "cpu",
    **facts: Any,
) -> dict[str, Any]:
    """Write `run_record(options, device, **facts)` to `path` as JSON, whole or not at all.

    Returns:
        The record.

    Raises:
        UserError: the file cannot be written.
    """
    record = run_record(options, device, **facts)
    write_json(path, record)
    return record


def project_version() -> str | None:
    """The version in pyproject.toml (read by pattern: Python 3.10 has no TOML reader)."""
    try:
        text = (PROJECT_FOLDER / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r'^version\s*=\s*"([^"]+)"', text, re.MULTILINE)
    return match.group(1) if match else None


def git_commit(folder: Path) -> str | None:
    """Commit checked out in `folder`, with "-dirty" where tracked files differ from it.

    None where `folder` is not itself a repository (one further up is another project's), git is
    not installed, or there is no commit.
    """
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(
            [*command, "--exclude", "*"],
            capture_output=True,
            encoding="utf-8",
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def device_name(device: str) -> str:
    """The maker's name of a torch device: the graphics card's, or the processor's."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(device))
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def peak_memory() -> int | None:
    """Largest resident memory of this process so far in bytes; None where it is not told."""
    try:
        # Linux counts anew after exec here, while getrusage also tells what the caller had used.
        text = STATUS.read_text(encoding="utf-8")
    except OSError:
        text = ""
    if match := re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE):
        return int(match[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def _peak_device_memory(device: str) -> int | None:
    # Looked up, not imported: a script that never used torch must not load it to say so.
    torch = sys.modules.get("torch")
    if not device.startswith("cuda") or torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated(device))


def _package_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
