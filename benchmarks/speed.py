"""Time a training step and the enlargement of a slice: `python -m benchmarks.speed`.

Prints a Markdown table with the machine above it. Times are medians of --repeats runs after one
warm-up, with nothing else running; compare them by ratio, since machines differ.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from models.medical_cycle_gan import MODELS
from models.networks import SRGenerator
from models.super_resolver import SuperResolver
from options import TrainOptions
from util.devices import choose_devices
from util.run_record import PROJECT_FOLDER, device_name, git_commit


def median_seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median wall time of `work` after one warm-up, the device's queue drained each time."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def training_step(words: list[str], device: torch.device) -> Callable[[], None]:
    """One step on random patches with the options that `words` give."""
    options, _ = TrainOptions().parse(words, lambda: 0)
    model = MODELS[options.model](options, [device])
    sizes = {"clinical": options.clinical_patch_size, "micro": options.micro_patch_size}
    batch = {
        name: torch.rand(options.batch_size, 1, size, size) * 2 - 1 for name, size in sizes.items()
    }

    def step() -> None:
        model.set_input(batch)
        model.optimize_parameters()

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gpu_ids", default="all")
    arguments = parser.parse_args()
    device = choose_devices(arguments.gpu_ids)[0]
    torch.manual_seed(0)
    print(
        f"{device_name(str(device))}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, Python {platform.python_version()}, commit "
        f"{git_commit(PROJECT_FOLDER)}, seed 0, median of {arguments.repeats}\n"
    )
    published = ["--preset", "published", "--batch_size", "1"]
    steps = {
        "training step, 8x, published sizes, batch 1, fp32": published,
        "the same, bf16": [*published, "--precision", "bf16"],
        "training step, 4x, published sizes, batch 1, fp32": [
            *published,
            "--model",
            "medical_cycle_ganx4",
        ],
        "training step, 8x, demo preset": ["--preset", "demo"],
    }
    print("| work | seconds |\n|---|---|")
    for name, words in steps.items():
        seconds = median_seconds(training_step(words, device), arguments.repeats, device)
        print(f"| {name} | {seconds:.2f} |", flush=True)
    image = np.random.default_rng(0).uniform(-1, 1, (512, 512)).astype(np.float32)
    mask = np.zeros((512, 512), dtype=np.uint8)
    mask[100:400, 60:450] = 1
    for precision in ("fp32", "bf16"):
        resolver = SuperResolver(SRGenerator(3), device, precision)
        for scope, name in ((None, "whole slice"), (mask, "lung statistics")):

            def work(resolver: SuperResolver = resolver, scope: np.ndarray | None = scope) -> None:
                resolver.upscale_slice(image, scope)

            seconds = median_seconds(work, arguments.repeats, device)
            print(
                f"| 512x512 slice to 4096x4096, {precision}, {name} | {seconds:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
