"""Draw docs/images/phantom.png: what the digital lung phantom looks like in both scanners.

    python scripts/phantom_picture.py [--out PICTURE]

Four panels: a micro-CT slice, the same place as the clinical scanner sees it, a clinical slice,
and a part of the micro-CT slice enlarged. Every pixel is shown as a square, never interpolated.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.phantom.anatomy.patient import Anatomy  # noqa: E402
from data.phantom.render import render_clinical, render_micro  # noqa: E402
from data.phantom.scanners import MicroScanner  # noqa: E402
from util.errors import run_command_line  # noqa: E402
from util.files import atomic_path  # noqa: E402

MICRO_PATIENT, CLINICAL_PATIENT = 31, 21  # the held-back ones of the default phantom
SIDE, GAP, HEAD = 512, 12, 26  # panel side, margins and caption height in picture pixels
GREYS = 48  # grey levels kept: noise would otherwise fill the file


def main(arguments: list[str]) -> None:
    """Render and draw."""
    parser = argparse.ArgumentParser(description="Draw the digital lung phantom.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "phantom.png")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    out = parser.parse_args(arguments).out
    anatomy, scanner = Anatomy(MICRO_PATIENT), MicroScanner()
    middle = anatomy.micro_centre(np.multiply((SIDE, SIDE, 16), scanner.voxel))
    centre = (float(middle[0]), float(middle[1]), float(middle[2]))
    micro = render_micro(MICRO_PATIENT, (SIDE, SIDE, 1), scanner, centre).array[0]
    same = render_clinical(MICRO_PATIENT, (SIDE // 8, SIDE // 8, 1), None, centre).array[0]
    chest = render_clinical(CLINICAL_PATIENT, (256, 224, 1)).array[0]
    chest = np.pad(chest, ((16, 16), (0, 0)), constant_values=-1024)
    window = (float(np.percentile(micro, 0.1)), float(np.percentile(micro, 99.9)))
    panels = [
        ("micro-CT, 0.0625 mm, 32 mm wide", micro, window),
        ("the same place, clinical CT, 0.5 mm cubes, -1000..200 HU", same, (-1000.0, 200.0)),
        ("clinical CT, -1000..500 HU, 128 mm wide, with nodule", chest, (-1000.0, 500.0)),
        ("part of the first, 4x: septa, vessels, airway", _middle(micro, SIDE // 4), window),
    ]
    _draw(panels, out)
    print(f"{out} ({out.stat().st_size / 1000:.0f} kB)")


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    """The middle part, where the specimen's airway lies."""
    low = (image.shape[0] - side) // 2
    return image[low : low + side, low : low + side]


def _draw(panels: list[tuple[str, np.ndarray, tuple[float, float]]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    width, height = 2 * SIDE + 3 * GAP, 2 * (SIDE + HEAD) + GAP
    figure = pyplot.figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    for number, (caption, image, (low, high)) in enumerate(panels):
        row, column = divmod(number, 2)
        left = GAP + column * (SIDE + GAP)
        bottom = height - (row + 1) * (SIDE + HEAD)
        place = (left / width, bottom / height, SIDE / width, SIDE / height)
        axes = figure.add_axes(place)
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(caption, fontsize=10, pad=5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    pyplot.close(figure)
    picture = Image.open(buffer).convert("L")
    step = 255 / (GREYS - 1)
    picture = picture.point([round(round(level / step) * step) for level in range(256)])
    with atomic_path(out) as partial:
        picture.save(partial, format="png", optimize=True)


if __name__ == "__main__":
    sys.exit(run_command_line(main, sys.argv[1:]))
