"""Draw docs/images/phantom.png: what the digital lung phantom looks like, disease by disease.

    python scripts/phantom_picture.py [--out PICTURE]

A column a disease. From top to bottom: micro-CT enlarged four times, one micro-CT voxel of the same
place without noise, the slab that a clinical slice averages, and the clinical CT. Every voxel is
shown as a square, never interpolated. Takes two minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.formats.readers import read_volume  # noqa: E402
from data.phantom.anatomy.disease import DISEASES  # noqa: E402
from data.phantom.case import read_case  # noqa: E402
from data.phantom.pair import MICRO, PairPlan, write_pair  # noqa: E402
from data.truth_case import TruthCase  # noqa: E402
from util.errors import run_program  # noqa: E402
from util.files import atomic_path  # noqa: E402

FIRST_PATIENT = 211  # none of the benchmark's
FIELD = (64, 64, 4)  # clinical voxels
PART, ENLARGED = 64, 4  # micro-CT voxels that are enlarged, and how often
SIDE, GAP, HEAD = PART * ENLARGED, 8, 22  # panel side, margins and caption height, picture pixels
GREYS = 48  # grey levels kept: noise would otherwise fill the file
HU = (-1000.0, 200.0)
ROWS = ("micro-CT, {}", "one voxel thick, {}", "slab of 0.5 mm, {}", "clinical CT, {}")
WIDTHS = ("4 mm", "32 mm", "32 mm", "32 mm")


def main(arguments: list[str]) -> None:
    """Render and draw."""
    parser = argparse.ArgumentParser(description="Draw the digital lung phantom.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "phantom.png")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    out = parser.parse_args(arguments).out
    columns = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, disease) in enumerate(DISEASES.items()):
            plan = PairPlan(FIRST_PATIENT + number, disease, size=FIELD)
            patient = write_pair(Path(folder) / name, plan, os.cpu_count() or 1)
            columns.append((name.replace("_", " "), panels(patient)))
    _draw(columns, out)
    print(f"{out} ({out.stat().st_size / 1000:.0f} kB)")


def panels(patient: Path) -> list[tuple[np.ndarray, tuple[float, float]]]:
    """Images of a column with the values that are black and white."""
    case, micro = read_case(patient), read_volume(patient / MICRO)
    index = len(case.truth) // 2
    per_slice = micro.num_slices // len(case.truth)
    fine = micro.read_slice(index * per_slice + per_slice // 2)
    row, column = busy_part(case, index)
    part = fine[row : row + PART, column : column + PART]
    window = (float(np.percentile(fine, 0.1)), float(np.percentile(fine, 99.9)))
    return [
        (part, window),
        *((volume[index], HU) for volume in (case.thin, case.truth, case.clinical)),
    ]


def busy_part(case: TruthCase, index: int) -> tuple[int, int]:
    """First row and column of the part with the most to see: the border of the nodule, else septa
    in parenchyma."""
    parenchyma = case.labelled("parenchyma")[index]
    other = case.labelled("nodule" if case.labelled("nodule").any() else "septum")[index]
    best, place = -1.0, (0, 0)
    for row in range(0, len(parenchyma) - PART, PART // 4):
        for column in range(0, len(parenchyma) - PART, PART // 4):
            part = (slice(row, row + PART), slice(column, column + PART))
            score = float(np.sqrt(other[part].mean()) * parenchyma[part].mean())
            if score > best:
                best, place = score, (row, column)
    return place


def _draw(
    columns: list[tuple[str, list[tuple[np.ndarray, tuple[float, float]]]]], out: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    width = len(columns) * (SIDE + GAP) + GAP
    height = len(ROWS) * (SIDE + HEAD) + GAP
    figure = pyplot.figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    for column, (name, images) in enumerate(columns):
        for row, (image, (low, high)) in enumerate(images):
            left = GAP + column * (SIDE + GAP)
            bottom = height - (row + 1) * (SIDE + HEAD)
            axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_axis_off()
            title = ROWS[row].format(name) if row == 0 else ROWS[row].format(WIDTHS[row])
            axes.set_title(title, fontsize=9, pad=4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    pyplot.close(figure)
    picture = Image.open(buffer).convert("L")
    step = 255 / (GREYS - 1)
    picture = picture.point([round(round(level / step) * step) for level in range(256)])
    with atomic_path(out) as partial:
        picture.save(partial, format="png", optimize=True)


if __name__ == "__main__":
    run_program(main)
