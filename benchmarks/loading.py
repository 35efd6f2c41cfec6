"""Patches a second and memory a worker from micro-CT of 16 GB: `python -m benchmarks.loading`.

Writes a sparse volume of 2000^3 voxels as NIfTI and as Zarr into a temporary folder, draws training
items from each with loader workers, and prints a Markdown table with the machine above it. Part of
the voxels are noise on the disk, so that patches are read and unpacked as real ones are.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from data.opening import slice_digests
from data.patches import PatchSettings
from data.sampling import EpochSampler
from data.training_data import TrainingData, all_axes
from data.unpaired_dataset import UnpairedDataset
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy, sampled_range

EDGE = 2000
CHUNK = 128
WRITTEN_SLICES = 256  # of noise, at the volume's low end: 2 GB; the rest is a hole in the file
PATCH, SCALE = 32, 8
SEED = 0


def noise(slices: int) -> np.ndarray:
    """Slices of compressible noise, (slices, EDGE, EDGE) uint16."""
    generator = np.random.default_rng(SEED)
    return generator.integers(0, 1 << 12, (slices, EDGE, EDGE), dtype=np.uint16)


def write_nifti(path: Path) -> Path:
    """A sparse .nii: header, noise, and a hole up to the end."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint16)
    header.set_data_shape((EDGE, EDGE, EDGE))
    header.set_zooms((0.02, 0.02, 0.02))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(np.diag([0.02, 0.02, 0.02, 1.0]), code=1)
    with path.open("wb") as stream:
        stream.write(header.binaryblock + b"\0" * 4)
        for _ in range(0, WRITTEN_SLICES, CHUNK):
            stream.write(noise(CHUNK).tobytes())
        stream.truncate(352 + 2 * EDGE**3)
    return path


def write_zarr(path: Path) -> Path:
    """A Zarr array in cubes of CHUNK voxels, of which those without noise are left out."""
    import zarr

    array: Any = zarr.open(
        str(path), mode="w", shape=(EDGE,) * 3, chunks=(CHUNK,) * 3, dtype=np.uint16
    )
    for start in range(0, WRITTEN_SLICES, CHUNK):
        array[start : start + CHUNK] = noise(CHUNK)
    array.attrs["spacing"] = [0.02] * 3
    return path


def resident(pid: int) -> int:
    """Largest resident memory of a process so far, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    match = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def measure(micro: list[Volume], workers: int, items: int) -> tuple[float, int]:
    """(items a second, largest memory of a worker)."""
    voxels = np.random.default_rng(SEED).integers(-1000, 500, (8, 256, 256)).astype(np.int16)
    clinical = Volume(voxels, np.diag([0.7, 0.7, 1.0, 1.0]), "clinical")
    windows = WindowPolicy("window", CLINICAL_WINDOW, IntensityWindow(0, 1 << 12))
    settings = PatchSettings(
        clinical_patch_size=PATCH,
        micro_patch_size=PATCH * SCALE,
        scale=SCALE,
        patches_per_volume=items,
        seed=SEED,
        micro_mix=0.25,
        degradation="area",
        flip=True,
        serial=False,
        fresh=True,
        max_size=None,
        sampling="by_volume",
        match_spacing=False,
    )
    dataset = UnpairedDataset(TrainingData([(clinical, None)], micro, windows, []), settings)
    sampler = EpochSampler(len(dataset), SEED)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers)
    batches: Any = iter(loader)
    next(batches)  # workers are up and have opened their files
    started, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["micro"])
        pids = [worker.pid for worker in batches._workers]
        memory = max(resident(pid) for pid in pids)
    return count / (time.perf_counter() - started), memory


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--folder", help="where to write 4 GB; default: the temporary folder")
    arguments = parser.parse_args(words)
    print(f"{machine_line(torch.device('cpu'), SEED)}, {arguments.workers} workers\n")
    print("| volume of 2000^3 uint16 | seconds before the first step | items a second | "
          "GB a worker |\n|---|---|---|---|")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for title, path in (
            ("NIfTI, mapped", write_nifti(folder / "large.nii")),
            (f"Zarr, cubes of {CHUNK}", write_zarr(folder / "large.zarr")),
        ):
            started = time.perf_counter()
            volume = read_volume(path, folder / "cache")
            slice_digests([volume])
            sampled_range(volume)
            opened = time.perf_counter() - started
            for axes in ("z", "zyx"):
                views = all_axes(volume.select_slices(0, WRITTEN_SLICES), axes)
                rate, memory = measure(views, arguments.workers, arguments.items)
                print(
                    f"| {title}, slices across {axes} | {opened:.1f} | {rate:.0f} | "
                    f"{memory / 1e9:.2f} |"
                )


if __name__ == "__main__":
    run_benchmark(main)
