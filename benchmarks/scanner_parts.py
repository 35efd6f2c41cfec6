"""What each part of the random scanner is worth: G_A trained on without it.

    python -m benchmarks.scanner_parts --weights FILE --micro FILE ... --patients FOLDER ... \\
        --out results/parts

Every variant goes on from the same weights for as many steps of pseudo-pairs alone, each with a
scanner that lacks one part (models/scanner_model.py). Scored by dB over cubic spline inside the
lung, on the scanners of benchmarks/scanners.py and on some that they leave out. A variant that has
its weights already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks import scanners
from benchmarks.machine import machine_line
from benchmarks.printed_tables import run_benchmark
from data.phantom.case import read_case
from methods.truth.scanner_matrix import Scanner, seen_by
from models.inference.super_resolver import SuperResolver
from models.scanner_model import SHARPENING_SIGMA
from util.images.resampling import area_average, enlarge, resize
from util.run_record import PROJECT_FOLDER

BATCH, EPOCHS = 8, 3
TRAINING = [
    "--preset", "best", "--lambda_stability", "0", "--lambda_lattice", "0",
    "--clinical_patch_size", "24", "--batch_size", str(BATCH), "--batch_num", "100000",
    "--windows", "micro=2500:12250", "--niter", "1", "--niter_decay", str(EPOCHS - 1),
    "--ema", "0.995", "--num_threads", "0", "--no_html", "--overwrite",
]  # fmt: skip
# What each variant lacks: options of train.py, and constants of models/scanner_model.py.
PARTS: dict[str, tuple[list[str], dict[str, float]]] = {
    "all parts": ([], {}),
    "no point spread": (["--scanner_blur", "0", "0"], {}),
    "no sharpening": (["--scanner_sharpening", "0", "0"], {}),
    "no noise": (["--scanner_noise", "0", "0"], {}),
    "white noise alone": ([], {"WITH_RAMP": 0, "WITH_GRAIN": 0}),
    "no white floor": ([], {"WITH_FLOOR": 0}),
    "one pixel size": (["--scanner_pixel", "1", "1"], {}),
    "no calibration": (["--scanner_calibration", "0"], {}),
    "never exactly none": ([], {"EXACTLY_NONE": 0}),
}
Seen = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SHRUNK = 2 / 3  # of the truth, as if the clinical pixel were 1.5 times as large


def train(name: str, weights: Path, micro: list[Path], steps: int, out: Path) -> Path:
    """Train a variant on; returns its checkpoint."""
    folder = name.replace(" ", "_")
    latest, record = out / folder / "latest.pt", out / folder / "run.json"
    options, constants = PARTS[name]
    words = [
        "train.py", *TRAINING, *options, "--name", folder, "--checkpoints_dir", str(out),
        "--init_weights", str(weights), "--max_dataset_size", str(steps // EPOCHS * BATCH),
        "--all_clinical_paths", str(micro[0].with_name("clinical.nii")),
        "--all_micro_paths", *map(str, micro),
    ]  # fmt: skip
    if not is_done(record, steps):
        program = (
            "import runpy, sys\nfrom models import scanner_model\n"
            f"vars(scanner_model).update({constants})\n"
            f"sys.argv = {words}\nrunpy.run_path('train.py', run_name='__main__')\n"
        )
        log = out / f"{folder}.log"
        with log.open("w") as stream:
            command = [sys.executable, "-c", program]
            subprocess.run(command, cwd=PROJECT_FOLDER, stdout=stream, stderr=stream, check=False)
        if not is_done(record, steps):
            sys.exit(f"{name} did not train to its end: see {log}")
    return latest


def is_done(record: Path, steps: int) -> bool:
    """Whether a run has ended after so many steps, by its run.json."""
    if not record.is_file():
        return False
    found = json.loads(record.read_text(encoding="utf-8"))
    return bool(found["status"] == "finished" and found["steps"] == steps // EPOCHS * EPOCHS)


def sharp(average: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A kernel that overshoots."""
    lifted = 2 * average - ndimage.gaussian_filter(average, SHARPENING_SIGMA, mode="reflect")
    return seen_by(Scanner(1.2, 25.0), lifted, generator)


def white(average: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Noise that is not coloured."""
    seen = seen_by(Scanner(1.2, 0.0), average, generator)
    return (seen + 25 * generator.standard_normal(seen.shape)).astype(np.float32)


def uncalibrated(average: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Slope 1 % and offset 7 HU too high."""
    seen = seen_by(Scanner(1.2, 25.0), average, generator)
    return (seen + 1000) * np.float32(1.01) - np.float32(993)


def usual(average: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One of the twelve, for larger pixels."""
    return seen_by(Scanner(1.2, 25.0), average, generator)


OTHERS: dict[str, tuple[Seen, float]] = {
    "sharp kernel": (sharp, 1.0),
    "white noise": (white, 1.0),
    "uncalibrated": (uncalibrated, 1.0),
    "pixels 1.5 times as large": (usual, SHRUNK),
}


def other_gains(resolvers: list[SuperResolver], chosen: argparse.Namespace) -> np.ndarray:
    """dB over cubic spline, (others, weights), mean over slices."""
    generator = np.random.default_rng(chosen.seed)
    scale = resolvers[0].scale
    rows = []
    for folder in chosen.patients:
        case = read_case(folder)
        for index in range(0, case.truth.shape[0], chosen.step):
            of_slice = []
            for seen, size in OTHERS.values():
                rows_in, columns_in = (int(size * side) for side in case.mask.shape[1:])
                truth = resize(case.truth[index], rows_in * scale, columns_in * scale)
                lung = resize(case.mask[index].astype(np.float32), rows_in, columns_in) > 0.5
                inside = lung.repeat(scale, axis=0).repeat(scale, axis=1)
                scan = seen(area_average(truth, scale), generator)
                base = scanners.score(enlarge(scan, scale, order=3), truth, inside)
                images = [resolver.upscale(scan) for resolver in resolvers]
                of_slice.append([scanners.score(one, truth, inside) - base for one in images])
            rows.append(of_slice)
    return np.mean(rows, axis=0)


def main(words: list[str]) -> None:
    """Train all variants, then score them together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="to go on from")
    parser.add_argument("--micro", nargs="+", type=Path, required=True, help="phantom micro-CT")
    parser.add_argument("--patients", nargs="+", type=Path, required=True, help="that are scored")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200, help="of training for each variant")
    parser.add_argument("--step", type=int, default=6, help="slices from one to the next")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(words)
    chosen.ct, chosen.blurs, chosen.noises = None, scanners.BLURS, scanners.NOISES
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    weights, micro = chosen.weights.resolve(), [path.resolve() for path in chosen.micro]
    models = []
    for name in chosen.only:
        print(f"training: {name}", flush=True)
        models.append(train(name, weights, micro, chosen.steps, out))
    resolvers = [SuperResolver.from_checkpoint(path, precision="bf16") for path in models]
    cells, scores = scanners.measure(resolvers, chosen)
    gains = (scores - scores[:, :1])[:, len(scanners.OPPONENTS) :]
    of_cells = np.array(cells)
    columns = {
        "twelve scanners": gains.mean(0),
        "the worst of them": gains.min(0),
        "without blur": gains[of_cells[:, 0] == 0].mean(0),
        "without noise": gains[of_cells[:, 1] == 0].mean(0),
        **dict(zip(OTHERS, other_gains(resolvers, chosen), strict=True)),
    }
    print(machine_line(resolvers[0].device, chosen.seed))
    print("| trained with | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for number, name in enumerate(chosen.only):
        values = " | ".join(f"{column[number]:+.2f}" for column in columns.values())
        print(f"| {name} | {values} |")


if __name__ == "__main__":
    run_benchmark(main)
