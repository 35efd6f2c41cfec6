"""Texture of restored volumes: how far their power spectra are from the truth's, and how sharp.

`python -m benchmarks.texture RESULTS_FOLDER ...` reads the HR, LR and SR volumes that
microCTsmallpatchtest or wholevolumetest left, clips them to the run's window, and prints means
over the slices: distance of the radial power spectrum in dB, sharpness as a share of the truth's.
Cubic interpolation of the first folder's input stands above. PSNR and SSIM are those of the run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.printed_tables import run_benchmark
from data.formats.nifti import read_layout
from data.formats.nifti_slices import nifti_slices
from util.images.intensity_window import IntensityWindow
from util.images.metrics import sharpness
from util.images.resampling import enlarge
from util.images.texture import spectrum_distance

Texture = tuple[float, float]  # spectrum distance in dB, sharpness


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args(words)
    print("| result | PSNR, dB | SSIM | spectrum, dB | sharpness |\n|---|---|---|---|---|")
    for number, folder in enumerate(arguments.folders):
        record_file = next(folder.glob("*_run.json"))
        record = json.loads(record_file.read_text(encoding="utf-8"))
        prefix = record_file.name.removesuffix("run.json")
        textures = np.array(list(slice_textures(folder, prefix, record)))
        distances, edges = textures.mean(0).T
        for column, name in ((1, "cubic"), (0, "SR")):
            if name == "SR" or number == 0:
                score = record["scores"][name]
                label = folder.name if name == "SR" else name
                print(
                    f"| {label} | {score['psnr']:.2f} | {score['ssim']:.3f} | "
                    f"{distances[column]:.1f} | {edges[column]:.2f} |"
                )


def slice_textures(folder: Path, prefix: str, record: dict) -> Iterator[tuple[Texture, Texture]]:
    """(SR, cubic) of every slice that is not flat."""
    window, scale = IntensityWindow(**record["window"]), int(record["scale"])
    paths = [folder / f"{prefix}{role}.nii.gz" for role in ("HR", "LR", "SR")]
    indices = range(read_layout(paths[0]).shape[0])
    for volumes in zip(*(nifti_slices(path, indices) for path in paths), strict=True):
        truth, low, restored = (np.clip(one, window.low, window.high) for one in volumes)
        if truth.std() > 0:
            rows, columns = truth.shape
            cubic = enlarge(low, scale, order=3)[:rows, :columns]
            yield measured(restored, truth), measured(cubic, truth)


def measured(image: np.ndarray, truth: np.ndarray) -> Texture:
    """Both measures of one slice."""
    return spectrum_distance(image, truth), sharpness(image, truth)


if __name__ == "__main__":
    run_benchmark(main)
