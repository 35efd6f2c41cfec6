"""Which devices to compute on, from --gpu_ids, and the memory that they have free."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from util.errors import UserError

if TYPE_CHECKING:
    import torch

CPUINFO = Path("/proc/cpuinfo")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
AMPERE = (8, 0)  # first cards with bf16 and TF32

# What a container or a batch job may use: control groups of version 2, and of version 1, which
# has a tree for memory alone.
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
ENDLESS = 1 << 62


def count_gpus() -> int:
    """Number of usable CUDA devices. Imports torch, so call it only when the answer is needed."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `why_no_gpu` tells it in one line
        return torch.cuda.device_count() if torch.cuda.is_available() else 0


def why_no_gpu() -> str | None:
    """What keeps torch from the NVIDIA GPU that the machine has; None where it has none.

    Such as a driver that is older than torch's CUDA, or a torch without CUDA.
    """
    import torch

    if not NVIDIA_DRIVER.exists():
        return None
    if torch.version.cuda is None:
        return "this torch was built without CUDA: install one with it (pytorch.org)"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    told = " ".join(str(one.message) for one in caught)
    reason = told.partition(". ")[0] or "torch found no usable device (CUDA_VISIBLE_DEVICES?)"
    return f"{reason} (torch {torch.__version__} needs the driver of CUDA {torch.version.cuda})"


def choose_devices(gpu_ids: str) -> list[torch.device]:
    """Devices for --gpu_ids: `all` (every GPU, else the CPU), `-1` (the CPU), or numbers.

    Raises:
        UserError: a GPU is named that is not there.
    """
    import torch

    count = count_gpus() if gpu_ids != "-1" else 0
    if gpu_ids == "all" and count == 0 and (reason := why_no_gpu()) is not None:
        print(f"warning: the GPU is not used: {reason}", file=sys.stderr)
    if gpu_ids == "-1" or (gpu_ids == "all" and count == 0):
        return [torch.device("cpu")]
    indices = range(count) if gpu_ids == "all" else [int(word) for word in gpu_ids.split(",")]
    for index in indices:
        if index >= count:
            if count:
                raise UserError(
                    f"--gpu_ids names GPU {index}, found {count}: give numbers below {count}, or "
                    "-1 for the CPU"
                )
            raise UserError(
                f"--gpu_ids names GPU {index}, found none: "
                f"{why_no_gpu() or 'the machine shows no NVIDIA driver'}; -1 takes the CPU"
            )
    return [torch.device("cuda", index) for index in indices]


def set_up_cudnn(precision: str = "fp32", deterministic: bool = False) -> None:
    """Let cuDNN train: float32 as float32 unless TF32 is asked for, the fastest way for each size.

    Patches have one size or two, so that trying all ways costs a second and not one a slice.

    Args:
        precision: of --precision.
        deterministic: take only ways that give the same numbers each time, on a GPU.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic and torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for its products of matrices
        # What has no such way says so in a warning of torch's.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def arithmetic_name(device: torch.device) -> str:
    """What rounds alike: the GPU's name, or the vector instructions that torch uses on the CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse tf32 and fp16 where a device does not have their arithmetic.

    Raises:
        UserError: says which it has.
    """
    is_gpu = device.type == "cuda"
    if (precision == "fp16" and not is_gpu) or (
        precision == "tf32" and not (is_gpu and has_bf16(device))
    ):
        since = " since Ampere" if precision == "tf32" else ""
        raise UserError(
            f"--precision {precision} is arithmetic of NVIDIA GPUs{since}, and "
            f"{arithmetic_name(device)} is to compute: give fp32 or bf16"
        )


def warn_of_emulated_bf16(device: torch.device) -> None:
    """Say in one line that bf16 will be slow, where the processor has no arithmetic for it."""
    if has_bf16(device) is False:
        print(
            f"warning: --precision bf16 on {arithmetic_name(device)}, which has no bf16 "
            "arithmetic: it is emulated, slower than fp32 and no more precise; leave it out"
            + (" (in testing, fp16 is fast there)" if device.type == "cuda" else ""),
            file=sys.stderr,
        )


def has_bf16(device: torch.device, cpuinfo: Path = CPUINFO) -> bool | None:
    """Whether a processor multiplies bf16 itself; None where the system does not tell.

    Args:
        device: the CPU or a GPU.
        cpuinfo: features of the CPU as Linux lists them: avx512_bf16 or amx_bf16 on x86, bf16 on
            ARM.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device) >= AMPERE
    try:
        listed = re.findall(
            r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text("utf-8"), re.MULTILINE
        )
    except OSError:
        return None
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(listed[0].split())) if listed else None


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
