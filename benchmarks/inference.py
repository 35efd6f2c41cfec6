"""Time one slice through G_A by every path, side by side: `python -m benchmarks.inference`.

Prints Markdown tables: seconds, the factor over the published generator run eagerly (NCHW, fp32),
the largest and mean difference from it, and the parts of the tail that were worth changing. All
paths of a table run in turn in one process, so compare them by ratio. Weights are random draws of
the published initialisation.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import interleaved, machine_line, published_generator
from benchmarks.printed_tables import run_benchmark
from models.fused.output_layer import EDGE, OutputConvolution
from models.inference.openvino_trunk import openvino_available
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from models.networks import DownsamplingGenerator, SRGenerator
from util.devices import choose_devices

WINDOW_HU = 1500.0  # width of the default window: what 2 in [-1, 1] stands for
TILE = 32  # of the published test
TIMED_TILES = 4  # all tiles take the same time, so a few of them are timed

Path = Callable[[], np.ndarray]


def giga_operations(generator: SRGenerator, edge: int) -> float:
    """10^9 multiplications and additions of all convolutions for one square slice."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            taps = module.weight[0].numel()
            nonlocal total
            total += 2 * taps * output.numel()

    handles = [module.register_forward_hook(count) for module in generator.modules()]
    with torch.inference_mode():
        generator(torch.zeros(1, 1, 32, 32, device=next(generator.parameters()).device))
    for handle in handles:
        handle.remove()
    return total * (edge / 32) ** 2 / 1e9


def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """10^9 operations a second of a large matrix product: what the machine can do."""
    side = 2048
    first = torch.randn(side, side, device=device).to(dtype)
    taken = interleaved([lambda: first @ first], 5, device)[0]
    return 2 * side**3 / taken / 1e9


def published_tile_pass(generator: SRGenerator, device: torch.device) -> Callable[[], None]:
    """The published test's work for `TIMED_TILES` tiles: four generator passes each."""
    shrink = DownsamplingGenerator(int(generator.architecture["sampling_times"])).to(device).eval()
    tile = torch.zeros(1, 1, TILE, TILE, device=device)
    dummy = torch.zeros(1, 1, TILE * generator.scale, TILE * generator.scale, device=device)

    def work() -> None:
        with torch.inference_mode():
            for _ in range(TIMED_TILES):
                shrink(generator(tile))
                generator(shrink(dummy))

    return work


def whole_slice(generator: SRGenerator, device: torch.device, edge: int, repeats: int) -> None:
    """Table of whole-slice paths."""
    image = np.random.default_rng(0).uniform(-1, 1, (edge, edge)).astype(np.float32)
    lung = np.zeros((edge, edge), dtype=bool)
    for left, right in ((0.12, 0.45), (0.55, 0.88)):
        lung[int(0.2 * edge) : int(0.75 * edge), int(left * edge) : int(right * edge)] = True
    tensor = torch.from_numpy(image)[None, None].to(device)
    last = copy.deepcopy(generator).to(memory_format=torch.channels_last)

    def eager(network: SRGenerator, values: Tensor) -> Path:
        def work() -> np.ndarray:
            with torch.inference_mode():
                result: np.ndarray = network(values)[0, 0].float().cpu().numpy()
            return result

        return work

    paths: dict[str, Path] = {
        "published generator, eager, NCHW, fp32": eager(generator, tensor),
        "the same, channels last": eager(
            last, tensor.contiguous(memory_format=torch.channels_last)
        ),
    }
    backends = ["torch"] + ["openvino"] * (device.type == "cpu" and openvino_available())
    for precision in ("fp32", "bf16"):
        for backend in backends:
            resolver = SuperResolver(generator, device, precision, backend=backend)
            name = f"ours, {backend}, {precision}"
            paths[name] = partial(resolver.upscale_slice, image)
            if backend == backends[-1]:
                paths[f"{name}, lung only"] = partial(resolver.upscale_slice, image, lung, lung)
        # Memory for the trunk alone, so that every map of the tail is computed again.
        least = resolver.memory.needed(edge * edge, 0)
        tight = SuperResolver(generator, device, precision, max_memory=least)
        paths[f"ours, torch, {precision}, no tail map kept"] = partial(tight.upscale_slice, image)
    tile_work = published_tile_pass(generator, device)
    times = interleaved([*paths.values(), tile_work], repeats, device)
    tiles = (edge // TILE) ** 2
    reference = next(iter(paths.values()))()
    operations = giga_operations(generator, edge)
    print(f"## One slice, {edge}x{edge} to {edge * generator.scale}x{edge * generator.scale}\n")
    print("| path | seconds | times faster | largest difference (HU) | mean (HU) |")
    print("|---|---|---|---|---|")
    for (name, work), taken in zip(paths.items(), times, strict=False):
        difference = np.abs(work() - reference) * WINDOW_HU / 2
        shown = f"{difference.max():.4f} | {difference.mean():.5f}"
        print(
            f"| {name} | {taken:.2f} | {times[0] / taken:.2f} | {'' if 'lung' in name else shown} |"
        )
    published = times[-1] * tiles / TIMED_TILES
    print(
        f"| published test: {tiles} tiles of {TILE}, four passes each (from {TIMED_TILES} tiles) | "
        f"{published:.1f} | {times[0] / published:.2f} | | |"
    )
    print(f"\n{operations:.0f} GFLOP a slice in its convolutions; matrix product here: ", end="")
    for dtype in (torch.float32, torch.bfloat16):
        rate = product_rate(dtype, device)
        print(f"{str(dtype)[6:]} {rate:.0f} GFLOP/s, floor {operations / rate:.2f} s. ", end="")
    print("\n")


def small_slices(generator: SRGenerator, device: torch.device, repeats: int) -> None:
    """Table of small slices, one by one and several a call."""
    print("## Small slices\n\n| slices | one a call (s) | several a call (s) | factor |")
    print("|---|---|---|---|")
    resolver = SuperResolver(generator, device)
    for edge in (25, 48):
        images = [np.full((edge, edge), 0.01 * i, dtype=np.float32) for i in range(64)]

        def alone(images: list[np.ndarray] = images) -> None:
            for image in images:
                resolver.upscale_slice(image)

        def together(images: list[np.ndarray] = images) -> None:
            for _ in resolver.upscale_slices(SliceJob(image) for image in images):
                pass

        one, several = interleaved([alone, together], repeats, device)
        print(f"| 64 of {edge}x{edge} | {one:.2f} | {several:.2f} | {one / several:.2f} |")
    print()


def parts(generator: SRGenerator, device: torch.device, edge: int, repeats: int) -> None:
    """Table of the output layer and of a norm, in both layouts."""
    layer = generator.model[-2]
    if not isinstance(layer, nn.Conv2d) or layer.bias is None:
        raise TypeError("the last layer is no convolution with bias")
    channels, rows = layer.weight.shape[1], 32
    grid = edge * generator.scale // 2
    low = torch.randn(1, 4 * channels, rows + 2 * EDGE, grid, device=device)
    low = low.contiguous(memory_format=torch.channels_last)
    full = F.pixel_shuffle(low, 2)
    output = OutputConvolution(layer.weight, layer.bias)
    values = torch.randn(1, 64, 16, edge, device=device)
    last = values.contiguous(memory_format=torch.channels_last)
    whole = torch.randn(1, 64, edge, edge, device=device)
    whole_last = whole.contiguous(memory_format=torch.channels_last)
    scale, shift = torch.rand(1, 64, 1, 1, device=device), torch.rand(1, 64, 1, 1, device=device)

    def published() -> Tensor:
        padded = F.pad(full, (3, 3, 0, 0), mode="reflect")
        return F.conv2d(padded, layer.weight, layer.bias).tanh_()

    works: dict[str, tuple[Callable[[], object], float]] = {
        "output layer, 7x7 on the shuffled map": (published, grid / rows),
        "output layer, 6x6 on the unshuffled map": (lambda: output(low, 0, 0), grid / rows),
        "instance norm of 64 channels, NCHW": (lambda: F.instance_norm(whole), 1.0),
        "the same, channels last": (lambda: F.instance_norm(whole_last), 1.0),
        "statistics and scaling in bands, channels last": (
            lambda: (
                (last - last.mean((2, 3), keepdim=True)).square_().sum((2, 3)),
                torch.addcmul(shift, last, scale),
            ),
            edge / 16,
        ),
    }
    with torch.inference_mode():
        times = interleaved([work for work, _ in works.values()], repeats * 3, device)
    print("## Parts, milliseconds for a whole slice in fp32\n\n| part | ms |\n|---|---|")
    for (name, (_, factor)), taken in zip(works.items(), times, strict=True):
        print(f"| {name} | {taken * factor * 1e3:.0f} |")


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--gpu_ids", default="all")
    arguments = parser.parse_args(words)
    device = choose_devices(arguments.gpu_ids)[0]
    generator = published_generator(device)
    print(f"{machine_line(device, 0)}, median of {arguments.repeats}, paths in turn\n")
    with torch.inference_mode():
        whole_slice(generator, device, arguments.edge, arguments.repeats)
        small_slices(generator, device, arguments.repeats)
        parts(generator, device, arguments.edge, arguments.repeats)


if __name__ == "__main__":
    run_benchmark(main)
