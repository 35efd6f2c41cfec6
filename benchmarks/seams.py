"""Seams and PSNR of every way to cut a slice and to take norm statistics, on shrunk real CT.

`python -m benchmarks.seams CHECKPOINT CT MASK --slices 100:140 --picture docs/images/seams.png`

The CT is shrunk by the model's scale and restored. Columns: PSNR inside the lung mask; root mean
square difference in HU from the whole-slice result of the same statistics; and the seam ratio, the
mean jump between neighbouring pixels across the borders of tiles over that everywhere else (1
means that no border shows).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from data.patches import shrink
from data.volumes.volume import parse_slices
from methods.restoration.shrunk_slices import low_mask
from models.checkpoints.checkpoint import load_generator
from models.inference.super_resolver import SuperResolver
from util.images.intensity_window import IntensityWindow
from util.images.pictures import best_inset, comparison_picture
from util.images.resampling import enlarge

Restore = Callable[[np.ndarray, np.ndarray], np.ndarray]


def blended(resolver: SuperResolver, tile: int) -> Restore:
    """Tiles that overlap by half, each with its own statistics, mixed with a Hann window."""

    def restore(low: np.ndarray, _: np.ndarray) -> np.ndarray:
        scale, edge = resolver.scale, tile * resolver.scale
        line = np.hanning(edge + 2)[1:-1].astype(np.float32)
        window = np.outer(line, line)
        rows, columns = low.shape
        total = np.zeros((rows * scale, columns * scale), dtype=np.float32)
        weight = np.zeros_like(total)
        for top in tile_starts(rows, tile):
            for left in tile_starts(columns, tile):
                place = np.s_[top * scale : top * scale + edge, left * scale : left * scale + edge]
                part = resolver.upscale_slice(low[top : top + tile, left : left + tile])
                total[place] += part * window
                weight[place] += window
        return total / weight

    return restore


def tile_starts(length: int, tile: int) -> list[int]:
    """First pixels of tiles that overlap by half; the last one ends at the border."""
    starts = list(range(0, max(1, length - tile), tile // 2))
    return [*starts, max(0, length - tile)] if starts[-1] + tile < length else starts


def seam_ratio(image: np.ndarray, edge: int) -> float:
    """Mean jump across borders of tiles of `edge` pixels over the mean jump elsewhere."""
    across, elsewhere = [], []
    for values in (image, image.T):
        jumps = np.abs(np.diff(values, axis=0)).mean(axis=1)
        border = np.zeros(len(jumps), dtype=bool)
        border[edge - 1 :: edge] = True
        across.append(jumps[border])
        elsewhere.append(jumps[~border])
    return float(np.concatenate(across).mean() / np.concatenate(elsewhere).mean())


def main(words: list[str]) -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("ct", type=Path)
    parser.add_argument("mask", type=Path)
    parser.add_argument("--slices", default=":")
    parser.add_argument("--tile", type=int, default=32)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args(words)
    device, tile = torch.device("cpu"), arguments.tile
    loaded = load_generator(arguments.checkpoint)
    window = IntensityWindow(-1000.0, 500.0)
    if loaded.windows is not None:
        window = IntensityWindow.from_dict(loaded.windows["clinical"])

    def resolver(tile_size: int | None = None, max_memory: int | None = None) -> SuperResolver:
        return SuperResolver(loaded.generator, device, tile_size=tile_size, max_memory=max_memory)

    whole, pooled, tiled = resolver(), resolver(), resolver(tile)
    scale, unit_hu = whole.scale, (window.high - window.low) / 2
    volume, masks = read_volume(arguments.ct), read_volume(arguments.mask)
    slices = range(*parse_slices(arguments.slices, volume.num_slices))
    rows, columns = (length - length % scale for length in volume.array.shape[1:])

    def pair(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        high = window.to_unit(volume.read_slice(index)[:rows, :columns])
        return high, shrink(high, scale, "area"), masks.read_slice(index)[:rows, :columns] != 0

    pooled.use_statistics([whole.measure_slice(pair(index)[1]) for index in slices])
    # Little memory: in bands, with no map of the tail kept.
    tight = resolver(max_memory=whole.memory.needed(rows * columns // scale**2, 0))
    tight.engine.band_values = 1 << 14
    methods: dict[str, tuple[Restore, str]] = {
        "slice, whole": (lambda low, _: whole.upscale_slice(low), ""),
        "slice, tiled for little memory": (lambda low, _: tight.upscale_slice(low), "slice, whole"),
        "volume": (lambda low, _: pooled.upscale_slice(low), "volume"),
        "lung": (lambda low, mask: whole.upscale_slice(low, low_mask(mask, scale)), "lung"),
        f"patch, published tiles of {tile}": (
            lambda low, _: tiled.upscale_slice(low),
            "slice, whole",
        ),
        f"patch, tiles of {tile} blended": (blended(whole, tile), "slice, whole"),
        "cubic spline, for comparison": (lambda low, _: enlarge(low, scale, 3), ""),
    }
    errors = dict.fromkeys(methods, 0.0)
    differences = dict.fromkeys(methods, 0.0)
    seams: dict[str, list[float]] = {name: [] for name in methods}
    pixels, shown = 0, slices[len(slices) // 2]
    panels: list[tuple[str, np.ndarray]] = []
    for index in slices:
        high, low, mask = pair(index)
        if not mask.any():
            continue
        pixels += int(np.count_nonzero(mask))
        results = {name: restore(low, mask).clip(-1, 1) for name, (restore, _) in methods.items()}
        for name, image in results.items():
            errors[name] += float(((image - high)[mask].astype(np.float64) ** 2).sum())
            other = results[methods[name][1] or "slice, whole"]
            differences[name] += float(((image - other) ** 2).mean(dtype=np.float64))
            seams[name].append(seam_ratio(image, tile * scale))
        if index == shown:
            names = list(methods)
            panels = [(name, window.to_physical(results[name])) for name in (*names[4:6], names[0])]
    print(f"{machine_line(device, 0)}, slices {arguments.slices} of {volume.name}\n")
    print("| statistics | PSNR in the lung (dB) | difference from whole (HU) | seam ratio |")
    print("|---|---|---|---|")
    for name, (_, reference) in methods.items():
        psnr = 10 * math.log10(4.0 / (errors[name] / pixels))
        shown_difference = (
            ""
            if reference in ("", name)
            else (f"{math.sqrt(differences[name] / len(slices)) * unit_hu:.3g}")
        )
        print(f"| {name} | {psnr:.2f} | {shown_difference} | {np.mean(seams[name]):.2f} |")
    if arguments.picture:
        comparison_picture(
            arguments.picture,
            panels,
            (window.low, window.high),
            best_inset(panels[0][1]),
            f"{volume.name}, slice {shown}, shrunk and restored {scale}x",
        )


if __name__ == "__main__":
    run_benchmark(main)
