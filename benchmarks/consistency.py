"""How far an SR volume, averaged back to its input's grid, is from that input.

`python -m benchmarks.consistency RESULTS_FOLDER [MASK]` reads clinical.nii.gz and SR.nii.gz as
medicaltest.py writes them, and prints the mean absolute difference in HU of the area average and
the input, over the voxels of MASK (a NIfTI on the input's grid; default: all).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.printed_tables import run_benchmark
from data.formats.readers import read_volume
from util.images.metrics import mean_absolute_error
from util.images.resampling import area_average


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("mask", type=Path, nargs="?")
    arguments = parser.parse_args(words)
    clinical = read_volume(arguments.folder / "clinical.nii.gz")
    enlarged = read_volume(arguments.folder / "SR.nii.gz")
    mask = None if arguments.mask is None else read_volume(arguments.mask)
    scale = enlarged.size[0] // clinical.size[0]
    errors, counts = [], []
    for index in range(clinical.num_slices):
        chosen = np.ones(clinical.array.shape[1:]) if mask is None else mask.read_slice(index)
        if chosen.any():
            averaged = area_average(enlarged.read_slice(index), scale)
            errors.append(mean_absolute_error(averaged, clinical.read_slice(index), chosen))
            counts.append(np.count_nonzero(chosen))
    print(f"{np.average(errors, weights=counts):.1f} HU over {sum(counts)} voxels")


if __name__ == "__main__":
    run_benchmark(main)
