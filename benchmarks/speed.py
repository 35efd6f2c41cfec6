"""Time a training step: `python -m benchmarks.speed`. For slices see benchmarks/inference.py.

Prints a Markdown table with the machine above it. Times are medians of --repeats runs after one
warm-up, with nothing else running; compare them by ratio, since machines differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.machine import interleaved, machine_line
from models.medical_cycle_gan import MODELS
from options import TrainOptions
from util.devices import choose_devices


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
    print(f"{machine_line(device, 0)}, median of {arguments.repeats}\n")
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
        seconds = interleaved([training_step(words, device)], arguments.repeats, device)[0]
        print(f"| {name} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
