"""A CUDA card: its ceilings, and the training step and the slice in every way of computing them.

`bash benchmarks/gpu.sh OUT` runs this together with the tests that need a GPU. Each row is written
to OUT/gpu.json as soon as it is there; rows that would begin after `--seconds` are left out.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.inference import giga_operations
from benchmarks.machine import machine_line, published_generator, seconds
from benchmarks.printed_tables import run_benchmark
from benchmarks.training import batch
from models.checkpoints.checkpoint import load_generator
from models.fused.network import fused_network
from models.fused.output_layer import EDGE, OutputConvolution
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from models.loss_names import LOSSES
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from models.networks import SRGenerator
from options import TrainOptions
from training.dry_run import measure_step
from util.devices import choose_devices, set_up_cudnn

SEED = 0
SHIPPED = Path("weights/sr_x8.safetensors")
LAST = torch.channels_last


class Report:
    """Rows as they come: printed, and kept in a file.

    Args:
        path: JSON file.
        deadline: `time.monotonic()` after which no row begins.
    """

    def __init__(self, path: Path, deadline: float) -> None:
        self.path, self.deadline = path, deadline
        self.rows: list[dict[str, Any]] = []

    def add(self, table: str, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Run `work` for a row's figures; a failure is a row too, and does not end the others."""
        if time.monotonic() > self.deadline:
            print(f"{table} | {name} | left out: no time", flush=True)
            return
        started = time.perf_counter()
        try:
            figures = work()
        except Exception as error:  # noqa: BLE001 - the rest is still to be measured
            traceback.print_exc()
            figures = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        figures["took"] = time.perf_counter() - started
        self.rows.append({"table": table, "name": name, **figures})
        shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in figures.items()}
        print(f"{table} | {name} | {shown}", flush=True)
        self.path.write_text(json.dumps(self.rows, indent=1), "utf-8")


def median_ms(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median milliseconds of `work` after it ran `repeats` // 3 + 2 times to warm up."""
    for _ in range(repeats // 3 + 2):
        work()
    return 1e3 * statistics.median(seconds(work, device) for _ in range(repeats))


# Ceilings.


def ceilings(report: Report, device: torch.device, tiny: bool) -> None:
    """Rates of a large matrix product in each type, and of a copy."""
    side = 512 if tiny else 8192

    def product(dtype: torch.dtype, tf32: bool) -> dict[str, Any]:
        first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = tf32
        taken = median_ms(lambda: first @ second, device, 10)
        torch.backends.cuda.matmul.allow_tf32 = False
        return {"ms": taken, "TFLOP/s": 2 * side**3 / taken / 1e9}

    def moved() -> dict[str, Any]:
        source = torch.randn(1 << (20 if tiny else 29), device=device)
        target = torch.empty_like(source)
        taken = median_ms(lambda: target.copy_(source), device, 10)
        return {"ms": taken, "GB/s": 2 * source.nbytes / taken / 1e6}

    report.add("ceiling", "product, fp32", lambda: product(torch.float32, False))
    report.add("ceiling", "product, tf32", lambda: product(torch.float32, True))
    report.add("ceiling", "product, bf16", lambda: product(torch.bfloat16, False))
    report.add("ceiling", "copy", moved)


# The training step.


BF16 = ["--precision", "bf16"]
TF32 = ["--precision", "tf32"]
LAYERS = ["--engine", "eager"]
WAYS: dict[str, tuple[list[str], str]] = {
    "layers, fp32 (published)": (LAYERS, ""),
    "ours, bf16": (BF16, ""),
    "ours, fp32": ([], ""),
    "ours, bf16, no graphs": (BF16, "ungraphed"),
    "ours, tf32": (TF32, ""),
    "ours, bf16, deterministic": ([*BF16, "--deterministic"], ""),
    "layers, bf16": ([*LAYERS, *BF16], ""),
    "layers, tf32": ([*LAYERS, *TF32], ""),
    "layers, bf16, channels last": ([*LAYERS, *BF16], "last"),
}
BATCHED = ("layers, fp32 (published)", "ours, bf16", "ours, fp32")
PROFILED = ("layers, fp32 (published)", "ours, bf16", "ours, fp32")


def prepared_model(way: str, size: int, device: torch.device, tiny: bool) -> MedicalCycleGANModel:
    """A model with weights of the seed, its batch set, computing in one of `WAYS`."""
    words, how = WAYS[way]
    sizes = ["--ngf", "8", "--ndf", "8"] if tiny else []
    options, _ = TrainOptions().parse(
        ["--preset", "paper", "--batch_size", str(size), *sizes, *words], lambda: 0
    )
    torch.manual_seed(SEED)
    model = MODELS[options.model](options, device)
    model.set_input(batch(model, 0))
    chosen = set(how.split())
    torch.use_deterministic_algorithms(False)
    set_up_cudnn(options.precision, options.deterministic)
    if way == "layers, fp32 (published)":
        torch.backends.cudnn.benchmark = False
    if "last" in chosen:
        for network in model.networks.values():
            network.to(memory_format=LAST)
    if "ungraphed" in chosen:
        model.graphed = None
    return model


def step(way: str, size: int, device: torch.device, tiny: bool, profile: Path) -> dict[str, Any]:
    """Milliseconds of a step, its losses after the first, peak memory, and its kernels."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    model = prepared_model(way, size, device, tiny)
    model.optimize_parameters()
    losses = {name: float(model.losses[name]) for name in LOSSES}
    ready = time.perf_counter() - started
    work = model.optimize_parameters
    taken = median_ms(work, device, 3 if tiny else 10)
    figures: dict[str, Any] = {"ms": taken, "ms a patch": taken / size, "first": ready}
    if device.type == "cuda":
        figures["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
        if way in PROFILED and size == 4:
            write_profile(f"step, batch {size}, {way}", work, profile)
    figures["losses"] = losses
    return figures


def write_profile(title: str, work: Callable[[], object], path: Path) -> None:
    """The kernels of two calls by time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(2):
            work()
        torch.cuda.synchronize()
    table = profiler.key_averages().table(
        sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=110
    )
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"## {title}\n{table}\n\n")


def steps(report: Report, device: torch.device, tiny: bool, folder: Path) -> None:
    """The training step in all ways at batch 4, and in some at 1 and 16."""
    options, _ = TrainOptions().parse(["--preset", "paper", "--batch_size", "1"], lambda: 0)
    shapes = MODELS[options.model](options, torch.device("meta"))
    forward, backward, _ = measure_step(shapes)
    print(f"arithmetic of a patch: {(forward + backward) / 1e12:.3f} TFLOP", flush=True)
    expected: dict[str, float] = {}
    for size, ways in ((4, tuple(WAYS)), (1, BATCHED), (16, BATCHED)):
        for way in ways:
            if tiny and size == 16:
                continue

            def row(way: str = way, size: int = size) -> dict[str, Any]:
                figures = step(way, size, device, tiny, folder / "kernels.txt")
                losses = figures.pop("losses")
                if size == 4:
                    expected.update(losses if not expected else {})
                    figures["off"] = max(
                        abs(losses[name] - value) / abs(value)
                        for name, value in expected.items()
                        if value
                    )
                figures["TFLOP/s"] = (forward + backward) * size / figures["ms"] / 1e9
                return figures

            report.add(f"step, batch {size}", way, row)


# The slice.


def slices(report: Report, device: torch.device, tiny: bool) -> None:
    """A slice on the device alone, and through SuperResolver with its copies."""
    edge, count = (32, 2) if tiny else (512, 12)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    generator = published_generator(device)
    smooth = torch.rand(1, 1, edge // 8, edge // 8, generator=torch.Generator().manual_seed(SEED))
    clinical = (F.interpolate(smooth, scale_factor=8, mode="bicubic") * 2 - 1).clamp(-1, 1)
    image = clinical[0, 0].numpy()
    there = clinical.to(device)
    with torch.inference_mode():
        reference = generator(there).float().cpu().numpy()[0, 0]
    operations = giga_operations(generator, edge)

    def alone(network: Callable[[Tensor], Tensor], tf32: bool, trial: bool) -> dict[str, Any]:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, trial
        with torch.inference_mode():
            found = network(there).float().cpu().numpy()[0, 0]
            taken = median_ms(lambda: network(there), device, 2 if tiny else 10)
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
        return of_slice(taken, found)

    def of_slice(taken: float, found: np.ndarray | None) -> dict[str, Any]:
        figures: dict[str, Any] = {"ms": taken, "TFLOP/s": operations / taken}
        if found is not None:
            difference = np.abs(found - reference) * 750
            figures |= {"largest HU": float(difference.max()), "mean HU": float(difference.mean())}
        return figures

    def ours(network: SRGenerator, precision: str, compare: bool, **more: Any) -> dict[str, Any]:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        resolver = SuperResolver(network, device, precision, **more)
        found = resolver.upscale_slice(image)
        jobs = [SliceJob(image)] * count

        def work() -> None:
            for _ in resolver.upscale_slices(jobs):
                pass

        figures = of_slice(median_ms(work, device, 3) / count, found if compare else None)
        if device.type == "cuda":
            figures["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
            figures["plan GB"] = (
                resolver.memory.needed(edge * edge, resolver.memory.doublings) / 1e9
            )
        return figures

    def in_type(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        network = copy.deepcopy(generator).to(dtype).to(memory_format=LAST)
        return lambda values: network(values.to(dtype))

    def autocast(values: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return generator(values)

    report.add("slice", "layers, fp32 (published)", lambda: alone(generator, False, False))
    report.add("slice", "layers, fp32, trials", lambda: alone(generator, False, True))
    report.add("slice", "layers, tf32", lambda: alone(generator, True, True))
    report.add("slice", "layers, bf16 autocast", lambda: alone(autocast, False, True))
    report.add(
        "slice", "layers, bf16, channels last", lambda: alone(in_type(torch.bfloat16), False, True)
    )
    report.add("slice", "ours, fp32", lambda: ours(generator, "fp32", True))
    report.add("slice", "ours, bf16", lambda: ours(generator, "bf16", True))
    if device.type == "cuda":
        report.add("slice", "ours, tf32", lambda: ours(generator, "tf32", True))
        report.add("slice", "ours, fp16", lambda: ours(generator, "fp16", True))
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network = fused_network(generator, dtype, device)
        if network is not None:
            report.add(
                "slice",
                f"training's network, {precision}",
                lambda network=network: alone(network, False, True),  # type: ignore[misc]
            )
    if SHIPPED.exists() and not tiny:
        shipped = load_generator(SHIPPED).generator
        report.add("slice", "sr_x8, ours, fp32", lambda: ours(shipped, "fp32", False))
        report.add("slice", "sr_x8, ours, bf16", lambda: ours(shipped, "bf16", False))


def output_layers(report: Report, device: torch.device, tiny: bool) -> None:
    """The output layer forward and back, on the shuffled map and before its shuffle, in bf16."""
    edge = 64 if tiny else 1024
    generator = published_generator(device)
    layer = generator.output[1]
    if not isinstance(layer, nn.Conv2d) or layer.bias is None:
        raise TypeError("the last layer is no convolution with bias")
    low = torch.randn(1, 4 * layer.in_channels, edge, edge, device=device).bfloat16()
    low = low.contiguous(memory_format=LAST).requires_grad_(True)
    weight, bias = layer.weight.bfloat16(), layer.bias.bfloat16()
    unshuffled = OutputConvolution(weight.detach(), bias.detach(), tanh=False)

    def published() -> Tensor:
        padded = F.pad(F.pixel_shuffle(low, 2), [3] * 4, mode="reflect")
        return F.conv2d(padded, weight.detach(), bias.detach())

    ways = {"7x7 shuffled": published, "6x6 before": lambda: unshuffled(low, EDGE, EDGE)}
    torch.backends.cudnn.benchmark = True
    for name, work in ways.items():

        def forward(work: Callable[[], Tensor] = work) -> dict[str, Any]:
            with torch.no_grad():
                there = median_ms(work, device, 10)

            def both() -> None:
                work().float().sum().backward()

            return {"ms": there, "with backward": median_ms(both, device, 10)}

        report.add("output layer", name, forward)
    torch.backends.cudnn.benchmark = False


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--gpu_ids", default="all")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the program")
    parser.add_argument("--seconds", type=float, default=240, help="for all rows")
    arguments = parser.parse_args(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = choose_devices(arguments.gpu_ids)[0]
    print(machine_line(device, SEED), flush=True)
    report = Report(arguments.out / "gpu.json", time.monotonic() + arguments.seconds)
    ceilings(report, device, arguments.tiny)
    steps(report, device, arguments.tiny, arguments.out)
    slices(report, device, arguments.tiny)
    output_layers(report, device, arguments.tiny)


if __name__ == "__main__":
    run_benchmark(main)
