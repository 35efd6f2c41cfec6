"""Write the phantom's held-back clinical CT as a DICOM series, as a scanner would hand it over.

    python scripts/phantom_dicom.py --out FOLDER

FOLDER, a new one, then holds one .dcm file a slice. The phantom is made in
datasets/phantom where it is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.formats.discovery import find_volumes  # noqa: E402
from data.formats.readers import read_volume  # noqa: E402
from data.phantom.training_set import generate_phantom, report_phantom  # noqa: E402
from data.volumes.geometry import LPS_TO_RAS  # noqa: E402
from data.writing.dicom_writer import write_series  # noqa: E402
from data.writing.exports import replace_series  # noqa: E402
from options.base_options import PHANTOM_FOLDER  # noqa: E402
from util.errors import UserError, run_program  # noqa: E402

SCALE = 8  # of the default phantom, which run.sh and test.sh take too
IMAGE_TYPE = "ORIGINAL\\PRIMARY\\AXIAL"
DESCRIPTION = "digital lung phantom, no patient"


def main(arguments: list[str]) -> None:
    """Make the phantom and write the series."""
    parser = argparse.ArgumentParser(description="Write the phantom's CT as a DICOM series.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    out = parser.parse_args(arguments).out
    if out.exists():
        raise UserError(f"{out} is there already: give the name of a new folder")
    phantom = generate_phantom(Path(PHANTOM_FOLDER) / f"x{SCALE}", SCALE, report_phantom(print))
    (path,) = find_volumes([str(phantom.clinical_test)])
    volume = read_volume(path)
    slices = (np.rint(volume.read_slice(index)) for index in range(volume.num_slices))
    lps = LPS_TO_RAS @ volume.affine

    def write(folder: Path) -> None:
        write_series(folder, slices, lps, volume.num_slices, path, IMAGE_TYPE, DESCRIPTION)

    replace_series(out, write)
    print(f"wrote {volume.num_slices} slices to {out}")


if __name__ == "__main__":
    run_program(main)
