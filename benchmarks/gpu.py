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
from benchmarks.training import batch
from models.checkpoints.checkpoint import load_generator
from models.fused.output_layer import EDGE, OutputConvolution
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from models.medical_cycle_gan import LOSSES, MODELS, MedicalCycleGANModel
from models.networks import SRGenerator
from models.stages import Stage, read_stages
from options import TrainOptions
from training.dry_run import measure_step
from util.devices import choose_devices

SEED = 0
SHIPPED = Path("weights/sr_x8.safetensors")
LAST = torch.channels_last
torch._dynamo.config.recompile_limit = 64  # `between` has a dozen kinds


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


# A network whose parts between two convolutions are one compiled function each.


def between(
    values: Tensor,
    added: Tensor | None,
    slope: Tensor | float | None,
    eps: float | None,
    shuffled: bool,
    reflect: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Norm, activation and residual sum in float32; the same shuffled and padded beside it."""
    wide = values.float()
    if eps is not None:
        variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
        wide = (wide - mean) * torch.rsqrt(variance + eps)
    if slope is not None:
        wide = torch.where(wide < 0, wide * slope, wide)
    if added is not None:
        wide = wide + added.float()
    whole = wide.to(dtype)
    read = F.pixel_shuffle(whole, 2) if shuffled else whole
    if reflect:
        read = F.pad(read, [reflect] * 4, mode="reflect")
    return whole.contiguous(memory_format=LAST), read.contiguous(memory_format=LAST)


class StagedNetwork:
    """Runs a network stage by stage in channels last.

    Args:
        network: its weights are used in place.
        dtype: of convolutions and of maps between them.
        compiled: whether `between` is compiled, once for each of its kinds.
        dynamic: whether one compiled kind serves all sizes.
    """

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, compiled: bool, dynamic: bool = True
    ) -> None:
        layers = network.model
        if not isinstance(layers, nn.Sequential):
            raise TypeError("expected one sequence of layers")
        self.network, self.dtype, self.stages = network, dtype, read_stages(layers)
        self.between = torch.compile(between, dynamic=dynamic) if compiled else between

    def __call__(self, images: Tensor) -> Tensor:
        """float32 (N, 1, H, W) to float32."""
        values: Tensor = images.to(self.dtype)
        added: Tensor | None = None
        last: Stage | None = None
        for stage in self.stages:
            if isinstance(stage, Stage):
                _, read = self.meet(values, added, last, stage)
                values, added, last = self.convolve(stage, read), None, stage
            else:
                first, second = stage
                block_input, read = self.meet(values, added, last, first)
                inner = self.convolve(first, read)
                _, read = self.meet(inner, None, first, second)
                values, added, last = self.convolve(second, read), block_input, second
        output = values.float()
        output = torch.tanh(output) if last is not None and last.tanh else output
        if isinstance(self.network, SRGenerator):
            return self.network.joined(output, images)
        return output

    def meet(
        self, values: Tensor, added: Tensor | None, before: Stage | None, after: Stage
    ) -> tuple[Tensor, Tensor]:
        """What stands between two convolutions."""
        if before is None:
            padded = F.pad(values, [after.reflect] * 4, mode="reflect") if after.reflect else values
            return values, padded
        eps = None if before.norm is None else before.norm.eps
        done = self.between(
            values, added, before.slope, eps, after.shuffled, after.reflect, self.dtype
        )
        whole: Tensor = done[0]
        return whole, done[1]

    def convolve(self, stage: Stage, read: Tensor) -> Tensor:
        """The stage's convolution alone."""
        layer = stage.convolution
        weight = layer.weight.to(self.dtype, memory_format=LAST)
        bias = stage.bias.to(self.dtype)
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(
                read, weight, bias, layer.stride, (1, 1), layer.output_padding
            )
        padding = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
        return F.conv2d(read, weight, bias, layer.stride, padding)


# The training step.


class GraphedStep:
    """Both halves of a step as CUDA graphs; the pools choose between them.

    Args:
        model: with its batch set; some steps are taken to warm up.
    """

    def __init__(self, model: MedicalCycleGANModel) -> None:
        self.model = model
        for optimizer in model.optimizers.values():
            for group in optimizer.param_groups:
                group["capturable"] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                model.optimize_parameters()
            self.fakes = {name: fake.clone() for name, fake in model.remembered_fakes().items()}
        torch.cuda.current_stream().wait_stream(stream)
        self.generators, self.discriminators = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.generators):
            model.train_generators()
        with torch.cuda.graph(self.discriminators, pool=self.generators.pool()):
            model.train_discriminators(self.fakes)

    def __call__(self) -> None:
        """Take a step."""
        self.generators.replay()
        for name, fake in self.model.remembered_fakes().items():
            self.fakes[name].copy_(fake)
        self.discriminators.replay()


BF16 = ["--precision", "bf16"]
LAYERS = ["--engine", "eager"]
# In the order of what is worth knowing first.
WAYS: dict[str, tuple[list[str], str]] = {
    "layers, fp32 (published)": (LAYERS, ""),
    "fused, bf16": (BF16, ""),
    "fused, fp32": ([], ""),
    "layers, bf16": ([*LAYERS, *BF16], ""),
    "layers, bf16, channels last": ([*LAYERS, *BF16], "last"),
    "staged compiled, bf16": (BF16, "staged compiled"),
    "staged compiled, bf16, graph": (BF16, "staged compiled graph"),
    "layers, bf16, graph": ([*LAYERS, *BF16], "graph"),
    "layers, tf32": (LAYERS, "tf32"),
    "fused, bf16, graph": (BF16, "graph"),
    "staged compiled, tf32, graph": ([], "staged compiled graph tf32"),
    "compiled, bf16": ([*LAYERS, *BF16], "compile"),
    "compiled, bf16, graph": ([*LAYERS, *BF16], "compile graph"),
}
PROFILED = (
    "layers, fp32 (published)",
    "fused, bf16",
    "staged compiled, bf16, graph",
    "compiled, bf16",
)
BATCHED = (
    "layers, fp32 (published)",
    "fused, bf16, graph",
    "layers, bf16, graph",
    "staged compiled, bf16, graph",
)


def prepared_model(
    way: str, size: int, device: torch.device, tiny: bool
) -> tuple[MedicalCycleGANModel, set[str]]:
    """A model with weights of the seed, its batch set, computing in one of `WAYS`."""
    words, how = WAYS[way]
    sizes = ["--ngf", "8", "--ndf", "8"] if tiny else []
    options, _ = TrainOptions().parse(
        ["--preset", "paper", "--batch_size", str(size), *sizes, *words], lambda: 0
    )
    torch.manual_seed(SEED)
    model = MODELS[options.model](options, [device])
    model.set_input(batch(model, 0))
    chosen = set(how.split())
    torch.backends.cudnn.allow_tf32 = "tf32" in chosen
    torch.backends.cudnn.benchmark = way != "layers, fp32 (published)"
    if "last" in chosen:
        for network in model.networks.values():
            network.to(memory_format=LAST)
    if "compile" in chosen:
        model.compiled = {n: torch.compile(n, dynamic=False) for n in model.networks.values()}
    if "staged" in chosen:
        dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        staged = {n: StagedNetwork(n, dtype, "compiled" in chosen) for n in model.networks.values()}
        model.run = lambda network, images: staged[network](images)  # type: ignore
    return model, chosen


def step(way: str, size: int, device: torch.device, tiny: bool, profile: Path) -> dict[str, Any]:
    """Milliseconds of a step, its losses after the first, peak memory, and its kernels."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    model, chosen = prepared_model(way, size, device, tiny)
    model.optimize_parameters()
    losses = {name: float(model.losses[name]) for name in LOSSES}
    ready = time.perf_counter() - started
    work: Callable[[], object] = model.optimize_parameters
    if "graph" in chosen and device.type == "cuda":
        work = GraphedStep(model)
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
    shapes = MODELS[options.model](options, [torch.device("meta")])
    forward, backward, _ = measure_step(shapes)
    print(f"arithmetic of a patch: {(forward + backward) / 1e12:.3f} TFLOP", flush=True)
    expected: dict[str, float] = {}
    whole = [way for way in WAYS if way.startswith("compiled")]  # a minute of compiling each
    first = [way for way in WAYS if way not in whole]
    for size, ways in ((4, first), (1, BATCHED), (16, BATCHED), (4, whole)):
        for way in ways:
            if tiny and ("compile" in way or size == 16):
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
    for compiled in (False, True):
        if tiny and compiled:
            continue
        name = "staged compiled, bf16" if compiled else "staged, bf16"
        staged = StagedNetwork(generator, torch.bfloat16, compiled, dynamic=False)
        report.add("slice", name, lambda staged=staged: alone(staged, False, True))  # type: ignore
    if SHIPPED.exists() and not tiny:
        shipped = load_generator(SHIPPED).generator
        report.add("slice", "sr_x8, ours, fp32", lambda: ours(shipped, "fp32", False))
        report.add("slice", "sr_x8, ours, bf16", lambda: ours(shipped, "bf16", False))
        moved = shipped.to(device)
        staged = StagedNetwork(moved, torch.bfloat16, True, dynamic=False)
        report.add("slice", "sr_x8, staged compiled, bf16", lambda: of_shipped(staged))
    if not tiny:
        report.add(
            "slice", "ours, bf16, --compile", lambda: ours(generator, "bf16", True, compiled=True)
        )

    def of_shipped(staged: StagedNetwork) -> dict[str, Any]:
        torch.backends.cudnn.benchmark = True
        with torch.inference_mode():
            taken = median_ms(lambda: staged(there), device, 10)
        torch.backends.cudnn.benchmark = False
        return of_slice(taken, None)


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
    unshuffled = OutputConvolution(weight.detach(), bias.detach(), LAST, tanh=False)

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--gpu_ids", default="all")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the program")
    parser.add_argument("--seconds", type=float, default=240, help="for all rows")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = choose_devices(arguments.gpu_ids)[0]
    print(machine_line(device, SEED), flush=True)
    report = Report(arguments.out / "gpu.json", time.monotonic() + arguments.seconds)
    ceilings(report, device, arguments.tiny)
    slices(report, device, arguments.tiny)
    output_layers(report, device, arguments.tiny)
    steps(report, device, arguments.tiny, arguments.out)


if __name__ == "__main__":
    main()
