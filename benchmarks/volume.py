"""Super-resolve a synthetic volume end to end and watch time and memory.

`python -m benchmarks.volume --slices 300` makes 512x512 slices of CT noise, runs the whole chain of
`smallpatchtest` on them (reading, network, cubic interpolation, composition, packing, writing)
with random weights, and prints seconds a slice, the resident memory along the way, and how long
the writer kept the others waiting. Memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.machine import machine_line, published_generator
from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from data.writing.nifti_writer import NiftiSliceWriter
from methods.super_resolution.resuming import UpscaleSettings
from methods.super_resolution.volume_upscaling import upscale_volume
from models.inference.precision import PRECISIONS
from models.inference.super_resolver import SuperResolver
from util.devices import choose_devices
from util.images.intensity_window import IntensityWindow
from util.interrupt import StopRequest
from util.run_record import peak_memory


def make_input(path: Path, edge: int, slices: int) -> None:
    """Write CT-like noise: a lung-like disk in soft tissue."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:edge, :edge] / edge - 0.5
    body = np.where(np.hypot(x, y) < 0.35, -850.0, 40.0)
    with NiftiSliceWriter(path, (edge, edge, slices), np.diag([0.7, 0.7, 1.0, 1.0])) as writer:
        for _ in range(slices):
            writer.append(body + rng.normal(0, 20, (edge, edge)))


@contextmanager
def timed_appends(memory: list[float]) -> Iterator[list[float]]:
    """Seconds of each append to a file of large slices; peak memory so far goes to `memory`."""
    seconds: list[float] = []
    original = NiftiSliceWriter.append

    def append(self: NiftiSliceWriter, values: np.ndarray) -> None:
        started = time.perf_counter()
        original(self, values)
        if self.path.name.startswith("SR"):
            seconds.append(time.perf_counter() - started)
            memory.append((peak_memory() or 0) / 1e9)

    NiftiSliceWriter.append = append  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        NiftiSliceWriter.append = original  # type: ignore[method-assign]


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--backend", choices=("auto", "torch", "openvino"), default="auto")
    parser.add_argument("--consistency", action="store_true")
    parser.add_argument("--gpu_ids", default="all")
    arguments = parser.parse_args(words)
    device = choose_devices(arguments.gpu_ids)[0]
    generator = published_generator(device)
    resolver = SuperResolver(generator, device, arguments.precision, backend=arguments.backend)
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder, timed_appends(memory) as appends:
        source = Path(folder) / "noise.nii.gz"
        make_input(source, arguments.edge, arguments.slices)
        volume = read_volume(source, Path(folder) / "cache")
        started = time.perf_counter()
        settings = UpscaleSettings(consistency=arguments.consistency)
        window = IntensityWindow(-1000.0, 500.0)
        upscale_volume(
            volume, None, resolver, window, Path(folder) / "out", settings, {}, StopRequest()
        )
        total = time.perf_counter() - started
        written = (Path(folder) / "out" / "SR.nii.gz").stat().st_size / 1e9
    print(f"{machine_line(device, 0)}, {resolver.backend}, {arguments.precision}\n")
    print("| quantity | value |\n|---|---|")
    print(f"| slices of {arguments.edge}x{arguments.edge} | {arguments.slices} |")
    print(f"| seconds a slice | {total / arguments.slices:.2f} |")
    print(f"| result | {written:.2f} GB packed |")
    print(
        f"| append to SR.nii.gz, median and longest | {statistics.median(appends):.3f} s, ", end=""
    )
    print(f"{max(appends):.3f} s |")
    for share in (0.1, 0.5, 1.0):
        count = max(1, int(share * len(memory)))
        print(f"| peak memory after {count} slices | {memory[count - 1]:.2f} GB |")


if __name__ == "__main__":
    run_benchmark(main)
