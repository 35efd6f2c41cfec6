"""What every benchmark prints above its table, and how it takes times."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from models.networks import SRGenerator, initialise
from util.run_record import PROJECT_FOLDER, device_name, git_commit


def machine_line(device: torch.device, seed: int) -> str:
    """Processor or card, threads, versions, commit and seed."""
    return (
        f"{device_name(str(device))}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, Python {platform.python_version()}, commit "
        f"{git_commit(PROJECT_FOLDER)}, seed {seed}"
    )


def published_generator(device: torch.device) -> SRGenerator:
    """The published 8x network in evaluation mode, with weights drawn from seed 0."""
    torch.manual_seed(0)
    generator = SRGenerator(3)
    initialise(generator)
    return generator.to(device).eval()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's queue drained."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def interleaved(
    works: Sequence[Callable[[], object]], repeats: int, device: torch.device
) -> list[float]:
    """Median wall time of each work, all in turn after a warm-up: slow spells hit all alike."""
    times: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats + 1):
        for number, work in enumerate(works):
            taken = seconds(work, device)
            if repeat:
                times[number].append(taken)
    return [statistics.median(column) for column in times]
