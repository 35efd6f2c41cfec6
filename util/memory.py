"""Free memory of the machine or of a GPU."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

# What a container or a batch job may use: control groups of version 2, and of version 1, which
# has a tree for memory alone.
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
ENDLESS = 1 << 62


class _Names(NamedTuple):
    """What a version of control groups calls its things."""

    mount: str  # folder of the tree
    tree: str  # pattern of the tree's name in /proc/self/cgroup
    limit: str
    used: str
    idle: str


VERSION_1 = _Names(
    "memory",
    r"\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)
VERSION_2 = _Names("", "0:", "memory.max", "memory.current", "inactive_file")


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still allocate: of the GPU, else of the machine or its job.

    Processes that torchrun started on this machine get equal shares.
    """
    if device.type == "cuda":
        import torch

        # What torch keeps for later is free to it, though not to others.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    groups = [
        _container_free(folder, names)
        for names in (VERSION_1, VERSION_2)
        for folder in _own_groups(OWN_CGROUP, CGROUP / names.mount, names.tree)
    ]
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(_machine_free(Path("/proc/meminfo")), *groups) // processes


def _own_groups(listing: Path, root: Path, tree: str) -> list[Path]:
    """Folders of this process's control group and all above it; limits hold at each.

    Args:
        listing: lines of tree and path, as /proc/self/cgroup has them.
        root: where the tree is mounted.
        tree: pattern of the tree's name in the listing.
    """
    try:
        match = re.search(rf"^{tree}:/(.*)$", listing.read_text("utf-8"), re.MULTILINE)
    except OSError:
        match = None
    folder = root if match is None else root / match[1]
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _machine_free(meminfo: Path) -> int:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text("utf-8"), re.MULTILINE)
    except OSError:
        match = None
    if match is not None:
        return int(match[1]) * 1024
    # macOS tells no better: half of what is built in.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _container_free(cgroup: Path, names: _Names) -> int:
    """Room below the memory limit of this cgroup; practically infinite where there is none."""
    try:
        limit = (cgroup / names.limit).read_text("utf-8").strip()
        used = int((cgroup / names.used).read_text("utf-8"))
        # Files that were read and lie in memory until something needs the room.
        match = re.search(
            rf"^{names.idle} (\d+)", (cgroup / "memory.stat").read_text("utf-8"), re.MULTILINE
        )
    except OSError:
        return ENDLESS
    used -= 0 if match is None else int(match[1])
    return ENDLESS if limit == "max" else max(0, int(limit) - used)
