"""How like real parenchyma the phantom's is in clinical CT: mean, contrast and power.

`python -m benchmarks.phantom_texture --scan CT --mask MASK [--patients 1 2 3 4]` takes a chest CT
and its lung mask, and renders slices of healthy phantom patients by a scanner of its voxel size and
its noise. Compared is calm parenchyma: of all squares of 28 pixels inside the lung the fifth with
the smallest standard deviation, without the larger vessels and airways.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from data.phantom.render import render_clinical, render_lung_mask
from data.phantom.scanners import ClinicalScanner
from util.images.texture import radial_power_spectrum

SCANS = ("LIDC-IDRI-0001", "LIDC-IDRI-0002")
EDGE, STRIDE = 28, 7  # pixels of a square, and from one to the next
CALM = 0.2  # share of squares
FREQUENCIES = (0.1, 0.3, 0.5)  # cycles/mm
QUIET_EDGE, SOFT = 16, (0.0, 90.0)  # squares of soft tissue, HU of their means: the scan's noise
QUIETEST = 0.1
STEP = 4  # slices of a scan from one to the next
FIELD = (112.0, 96.0)  # of the phantom, mm


class Calm(NamedTuple):
    """What calm parenchyma looks like."""

    mean: float  # HU
    deviation: float  # HU, within a square
    power: tuple[float, ...]  # HU^2 mm^2 at FREQUENCIES
    lung: float  # mean of the whole lung, HU


def calm_of(volume: np.ndarray, lung: np.ndarray, pixel: float) -> Calm:
    """Calm parenchyma of slices in HU (z, y, x), lung a mask of that shape, pixel in mm."""
    rows = []
    for section, inside in zip(volume, lung, strict=True):
        for top in range(0, section.shape[0] - EDGE, STRIDE):
            for left in range(0, section.shape[1] - EDGE, STRIDE):
                place = (slice(top, top + EDGE), slice(left, left + EDGE))
                if inside[place].all():
                    rows.append((section[place].std(), section[place]))
    limit = np.quantile([deviation for deviation, _ in rows], CALM)
    squares = [square for deviation, square in rows if deviation <= limit]
    powers = []
    for square in squares:
        frequency, power = radial_power_spectrum(square, pixel)
        powers.append(np.interp(FREQUENCIES, frequency, power))
    return Calm(
        float(np.mean(squares)),
        float(np.mean([square.std() for square in squares])),
        tuple(np.mean(powers, axis=0).tolist()),
        float(volume[lung].mean()),
    )


def calm_scan(scan: Path, mask: Path) -> tuple[Calm, ClinicalScanner]:
    """A CT's calm parenchyma, and a scanner of its voxel size and noise."""
    volume, lungs = read_volume(scan), read_volume(mask)
    chosen = range(volume.num_slices // 6, volume.num_slices * 5 // 6, STEP)
    values = np.stack([volume.read_slice(index).astype(np.float32) for index in chosen])
    inside = np.stack([lungs.read_slice(index) != 0 for index in chosen])
    pixel, _, thickness = volume.spacing
    noise = _noise(values, inside)
    scanner = ClinicalScanner(
        pixel=pixel, slice_thickness=thickness, noise=noise * float(np.sqrt(thickness))
    )
    return calm_of(values, inside, pixel), scanner


def _noise(values: np.ndarray, lung: np.ndarray) -> float:
    """Standard deviation in HU of the quietest soft tissue outside the lung."""
    found = []
    for section, inside in zip(values, lung, strict=True):
        for top in range(0, section.shape[0] - QUIET_EDGE, QUIET_EDGE // 2):
            for left in range(0, section.shape[1] - QUIET_EDGE, QUIET_EDGE // 2):
                place = (slice(top, top + QUIET_EDGE), slice(left, left + QUIET_EDGE))
                if not inside[place].any() and SOFT[0] < section[place].mean() < SOFT[1]:
                    found.append(section[place].std())
    return float(np.quantile(found, QUIETEST))


def calm_phantom(seed: int, scanner: ClinicalScanner, processes: int = 1) -> Calm:
    """Calm parenchyma of one slice of a healthy phantom patient."""
    size = (round(FIELD[0] / scanner.pixel), round(FIELD[1] / scanner.pixel), 1)
    volume = render_clinical(seed, size, scanner, processes=processes).array.astype(np.float32)
    return calm_of(volume, render_lung_mask(seed, size, scanner).array != 0, scanner.pixel)


def mean_of(patients: Sequence[Calm]) -> Calm:
    """The mean over patients."""
    power = np.mean([one.power for one in patients], axis=0)
    mean, deviation, lung = (
        float(np.mean([getattr(one, name) for one in patients]))
        for name in ("mean", "deviation", "lung")
    )
    return Calm(mean, deviation, tuple(power.tolist()), lung)


def main(words: list[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, required=True, help="chest CT")
    parser.add_argument("--mask", type=Path, required=True, help="its lung")
    parser.add_argument("--patients", type=int, nargs="+", default=(1, 2, 3, 4), help="seeds")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(words)
    real, scanner = calm_scan(chosen.scan, chosen.mask)
    print(f"noise {scanner.deviation:.1f} HU, voxels {scanner.spacing}")
    print("| | lung, HU | calm: mean, HU | deviation, HU | power at 0.1 | 0.3 | 0.5 cycles/mm |")
    print("|---|---|---|---|---|---|---|")
    patients = [calm_phantom(seed, scanner, chosen.processes) for seed in chosen.patients]
    names = [chosen.scan.name, *(f"phantom {seed}" for seed in chosen.patients), "phantoms, mean"]
    for name, one in zip(names, [real, *patients, mean_of(patients)], strict=True):
        power = " | ".join(f"{value:.0f}" for value in one.power)
        print(f"| {name} | {one.lung:.0f} | {one.mean:.0f} | {one.deviation:.1f} | {power} |")


if __name__ == "__main__":
    run_benchmark(main)
