"""Time and memory of rendering the phantom: a micro-CT slab of 1024 x 1024 x 32 voxels.

python -m benchmarks.phantom [--size 1024 1024 32] [--processes 2]
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import torch

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.phantom.render import render_micro

MEGABYTES = 1e3  # of ru_maxrss, which counts kilobytes on Linux


def main(words: list[str]) -> None:
    """Render and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(1024, 1024, 32))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=31)
    chosen = parser.parse_args(words)
    x, y, z = chosen.size
    start = time.perf_counter()
    # Around the lung's middle: a slab of 64 mm shows chest wall too.
    render_micro(chosen.seed, (x, y, z), centre=(-20.0, 0.0, -10.0), processes=chosen.processes)
    seconds = time.perf_counter() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(machine_line(torch.device("cpu"), chosen.seed))
    print(
        f"{x}x{y}x{z} voxels, {chosen.processes} processes: {seconds:.0f} s, peak "
        f"{own / MEGABYTES:.0f} MB here and {children / MEGABYTES:.0f} MB in each of the others"
    )


if __name__ == "__main__":
    run_benchmark(main)
