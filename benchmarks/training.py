"""The training step, fused and layer by layer: `python -m benchmarks.training`.

Prints Markdown tables with the machine above them: time, its parts and peak memory of each variant
in a process of its own, one after the other (compare them by ratio, since machines differ).
`--together` times them in one process, step by step in turn; `--agreement` compares losses over
twenty steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import interleaved, machine_line, seconds
from benchmarks.printed_tables import run_benchmark
from models.loss_names import LOSSES
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from options import TrainOptions
from util.devices import choose_devices
from util.run_record import peak_memory

VARIANTS = {
    "eager, fp32, as published": ["--engine", "eager"],
    "fused, fp32": [],
    "eager, bf16 autocast": ["--engine", "eager", "--precision", "bf16"],
    "fused, bf16": ["--precision", "bf16"],
}
PUBLISHED = ["--preset", "paper", "--batch_size", "1"]
STEPS = 20
SHOWN_STEPS = (1, 2, 3, 5, 10, 15, 20)
SEED = 0


def made_model(words: list[str], device: torch.device) -> MedicalCycleGANModel:
    """A model with weights drawn from the seed and its first batch set."""
    options, _ = TrainOptions().parse(words, lambda: 0)
    torch.manual_seed(SEED)
    model = MODELS[options.model](options, device)
    model.set_input(batch(model, 0))
    return model


def batch(model: MedicalCycleGANModel, number: int) -> dict[str, Tensor]:
    """Smooth noise with grain, another one for each number."""
    options = model.options
    generator = torch.Generator().manual_seed(SEED + number)

    def images(size: int) -> Tensor:
        shape = (options.batch_size, 1, size, size)
        coarse = torch.rand(options.batch_size, 1, size // 8, size // 8, generator=generator)
        smooth = F.interpolate(coarse, size=(size, size), mode="bilinear") * 2 - 1
        return (smooth + 0.05 * torch.randn(shape, generator=generator)).clamp(-1, 1)

    return {
        "clinical": images(options.clinical_patch_size),
        "micro": images(options.micro_patch_size),
    }


def measured(words: list[str], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of a step and of its parts, and the peak in GB, of this process."""
    model = made_model(words, device)
    step = interleaved([model.optimize_parameters], repeats, device)[0]
    peak = peak_memory() or 0
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return {"step": step, "peak": peak / 1e9, **parts_of_a_step(model, repeats)}


def parts_of_a_step(model: MedicalCycleGANModel, repeats: int) -> dict[str, float]:
    """Median seconds of a step's parts."""
    device, spent = model.device, dict.fromkeys(PARTS, 0.0)

    def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **more: Any) -> Any:
            results: list[Any] = []
            spent[part] += seconds(lambda: results.append(work(*arguments, **more)), device)
            return results[0]

        return run

    rows: list[dict[str, float]] = []
    model = copy.copy(model)
    optimizers = {name: copy.copy(optimizer) for name, optimizer in model.optimizers.items()}
    for optimizer in optimizers.values():
        optimizer.step = timed("optimisers", optimizer.step)  # type: ignore[method-assign]
    patched: dict[str, Any] = {
        "forward": timed("four generator passes", model.forward),
        "generator_loss": timed("generator losses with idt_A and idt_B", model.generator_loss),
        "discriminator_loss": timed("discriminator losses", model.discriminator_loss),
        "optimizers": optimizers,
    }
    for name, value in patched.items():
        setattr(model, name, value)
    for repeat in range(repeats + 1):
        spent.update(dict.fromkeys(PARTS, 0.0))
        total = seconds(model.optimize_parameters, device)
        row = {**spent, "backward passes and the rest": total - sum(spent.values())}
        if repeat:
            rows.append(row)
    return {part: statistics.median(row[part] for row in rows) for part in rows[0]}


PARTS = (
    "four generator passes",
    "generator losses with idt_A and idt_B",
    "discriminator losses",
    "optimisers",
)


def print_speed(repeats: int, gpu_ids: str) -> None:
    """Tables of times, memory and parts, each variant in a process of its own."""
    rows = []
    for name in VARIANTS:
        command = [sys.executable, "-m", "benchmarks.training", "--only", name]
        command += ["--gpu_ids", gpu_ids, "--repeats", str(repeats)]
        done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
        rows.append(json.loads(done.stdout))
    print("\n| step at 8x, published sizes, batch 1 | seconds | ratio | peak GB | ratio |")
    print("|---|---|---|---|---|")
    for name, row in zip(VARIANTS, rows, strict=True):
        print(
            f"| {name} | {row['step']:.2f} | {row['step'] / rows[0]['step']:.2f} | "
            f"{row['peak']:.2f} | {row['peak'] / rows[0]['peak']:.2f} |"
        )
    print("\n| part, seconds | " + " | ".join(VARIANTS) + " |")
    print("|---" * (len(VARIANTS) + 1) + "|")
    for part in list(rows[0])[2:]:
        print(f"| {part} | " + " | ".join(f"{row[part]:.2f}" for row in rows) + " |")


def print_together(device: torch.device, repeats: int) -> None:
    """Times of all variants in this process, step by step in turn."""
    models = [made_model([*PUBLISHED, *words], device) for words in VARIANTS.values()]
    times = interleaved([model.optimize_parameters for model in models], repeats, device)
    print("\n| step at 8x, in turn in one process | seconds | ratio |\n|---|---|---|")
    for name, taken in zip(VARIANTS, times, strict=True):
        print(f"| {name} | {taken:.2f} | {taken / times[0]:.2f} |")


def losses_of(model: MedicalCycleGANModel) -> dict[str, float]:
    """One step; its losses."""
    model.optimize_parameters()
    return {name: float(model.losses[name]) for name in LOSSES}


def difference(found: dict[str, float], expected: dict[str, float]) -> float:
    """Largest relative difference of a loss."""
    return max(abs(found[name] - value) / abs(value) for name, value in expected.items() if value)


def print_agreement(device: torch.device, ngf: int) -> None:
    """How far losses of twenty steps are from those of the layers in fp32.

    Three runs of their own show how fast rounding grows, the layers with another number of threads
    among them; `from the same state` gives the fused step the weights, optimisers and pools of the
    layers' run before each step, so that nothing grows.
    """
    sizes = [*PUBLISHED, "--ngf", str(ngf), "--ndf", str(ngf)]
    threads = torch.get_num_threads()
    eager = made_model([*sizes, "--engine", "eager"], device)
    others = {
        "eager, one thread": made_model([*sizes, "--engine", "eager"], device),
        "fused": made_model(sizes, device),
        "fused, from the same state": made_model(sizes, device),
    }
    print(f"\n| step, ngf {ngf} | " + " | ".join(others) + " |\n" + "|---" * 4 + "|")
    largest = dict.fromkeys(others, 0.0)
    for step in range(1, STEPS + 1):
        before, pools = copy.deepcopy(eager.state_dict()), copy.deepcopy(eager.pools_state())
        for model in (eager, *others.values()):
            model.set_input(batch(model, step))
        others["fused, from the same state"].load_state_dict(before)
        others["fused, from the same state"].load_pools(pools)
        expected = losses_of(eager)
        here = {}
        for name, model in others.items():
            torch.set_num_threads(1 if name == "eager, one thread" else threads)
            here[name] = difference(losses_of(model), expected)
            torch.set_num_threads(threads)
            largest[name] = max(largest[name], here[name])
        if step in SHOWN_STEPS:
            print(f"| {step} | " + " | ".join(f"{value:.1e}" for value in here.values()) + " |")
    print("| largest of 20 | " + " | ".join(f"{value:.1e}" for value in largest.values()) + " |")


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gpu_ids", default="all")
    parser.add_argument("--together", action="store_true", help="time all in one process, in turn")
    parser.add_argument("--agreement", action="store_true", help="compare losses over 20 steps")
    parser.add_argument("--ngf", type=int, default=16, help="channels for --agreement")
    parser.add_argument("--only", choices=VARIANTS, help="measure one variant here")
    arguments = parser.parse_args(words)
    device = choose_devices(arguments.gpu_ids)[0]
    if arguments.only:
        words = [*PUBLISHED, *VARIANTS[arguments.only]]
        print(json.dumps(measured(words, device, arguments.repeats)))
        return
    started = time.perf_counter()
    print(f"{machine_line(device, SEED)}, median of {arguments.repeats}")
    if arguments.agreement:
        print_agreement(device, arguments.ngf)
    elif arguments.together:
        print_together(device, arguments.repeats)
    else:
        print_speed(arguments.repeats, arguments.gpu_ids)
    print(f"\ntook {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    run_benchmark(main)
