"""Free memory of the machine or of a GPU."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# cgroup v2: what a container may use, and what it uses already.
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: of the GPU, else of the machine or its container."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return min(_machine_free(Path("/proc/meminfo")), _container_free(CGROUP))


def _machine_free(meminfo: Path) -> int:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text("utf-8"), re.MULTILINE)
    except OSError:
        match = None
    if match is not None:
        return int(match[1]) * 1024
    # macOS tells no better: half of what is built in.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _container_free(cgroup: Path) -> int:
    """Room below the memory limit of this cgroup; practically infinite where there is none."""
    try:
        limit = (cgroup / "memory.max").read_text("utf-8").strip()
        used = int((cgroup / "memory.current").read_text("utf-8"))
        # Files that were read and lie in memory until something needs the room.
        match = re.search(
            r"^inactive_file (\d+)", (cgroup / "memory.stat").read_text("utf-8"), re.MULTILINE
        )
    except OSError:
        return 1 << 62
    used -= 0 if match is None else int(match[1])
    return 1 << 62 if limit == "max" else max(0, int(limit) - used)
