"""What training changes and a checkpoint keeps: networks, optimisers, schedules, image pools.

The networks and optimisers are made here as the options describe them, and networks are run here by
the engine and in the precision that the options choose.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.discriminators import make_discriminator
from models.drawn_texture import Part, held, start_texture
from models.fused.network import fused_network
from models.image_pool import ImagePool
from models.networks import (
    DownsamplingGenerator,
    SRGenerator,
    initialise,
    start_without_checkerboard,
)
from models.optimisation import WeightAverage, make_scheduler, resume_rate, step_scheduler
from models.scanner_model import FixedScanner, RandomScanner, Scanner, ScannerRanges
from util.processes import Processes

NETWORKS = ("G_A", "G_B", "D_A", "D_B")
ADAM_BETA2 = 0.999


def residual_blocks(name: str) -> int:
    """Number of residual blocks that a generator name such as sr_resnet_9blocks states."""
    return int(name.rsplit("_", 1)[1].removesuffix("blocks"))


class Networks(NamedTuple):
    """The four networks by the paper's names."""

    G_A: SRGenerator
    G_B: DownsamplingGenerator
    D_A: nn.Module
    D_B: nn.Module


def make_networks(options: Namespace) -> Networks:
    """New networks with new weights, on the CPU."""
    norm, times = options.norm, options.sampling_times
    blocks = residual_blocks(options.clinical2micronetG)
    generator = SRGenerator(times, options.ngf, blocks, norm, options.skip, options.texture_noise)
    blocks = residual_blocks(options.micro2clinicalnetG)
    networks = Networks(
        generator,
        DownsamplingGenerator(times, options.ngf, blocks, norm),
        make_discriminator(options.netD, options.ndf, options.n_layers_D, norm),
        make_discriminator(options.netD, options.ndf, options.n_layers_D, norm),
    )
    for network in networks:
        initialise(network, options.init_type, options.init_gain)
    if options.init_icnr:
        start_without_checkerboard(generator)
    if generator.texture is not None:
        start_texture(generator.texture, options.texture_noise)
    return networks


def parts_for_texture(generator: SRGenerator) -> dict[str, Part]:
    """What of G_A is run apart where it has texture layers; nothing where it has none."""
    if generator.texture is None:
        return {}
    layers = {"trunk": generator.trunk, "texture": generator.texture, "tail": generator.tail}
    return {name: Part(part) for name, part in layers.items()}


def make_optimizers(
    options: Namespace, networks: Mapping[str, nn.Module]
) -> dict[str, torch.optim.Adam]:
    """One Adam for both generators and one for both discriminators, deciding on the device."""
    return {
        name: torch.optim.Adam(
            [*networks[f"{name}_A"].parameters(), *networks[f"{name}_B"].parameters()],
            options.lr,
            (options.beta1, ADAM_BETA2),
            fused=True,
        )
        for name in ("G", "D")
    }


def make_scanner(options: Namespace) -> Scanner:
    """The scanner that `options` describe."""
    scale = 2**options.sampling_times
    if options.scanner == "fixed":
        return FixedScanner(scale, options.pair_blur, options.pair_noise)
    ranges = ScannerRanges(
        tuple(options.scanner_blur),  # lists, as JSON gives them back
        tuple(options.scanner_steepness),
        tuple(options.scanner_sharpening),
        tuple(options.scanner_noise),
        options.scanner_calibration,
        known=options.scanner == "auto",
    )
    return RandomScanner(scale, ranges)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether any layer of a network is a batch norm."""
    return any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


class BaseModel:
    """The four networks with all that training keeps of them.

    Args:
        options: parsed training options.
        device: where to compute.
        processes: those that train together.
    """

    def __init__(self, options: Namespace, device: torch.device, processes: Processes) -> None:
        self.options = options
        self.device = device
        self.processes = processes
        self.G_A, self.G_B, self.D_A, self.D_B = make_networks(options)
        for network in self.networks.values():
            network.to(self.device)
        self.average = WeightAverage(self.G_A, options.ema) if options.ema > 0 else None
        seed = options.seed + 2 * processes.rank
        self.pool_A = ImagePool(options.pool_size, seed=seed)
        self.pool_B = ImagePool(options.pool_size, seed=seed + 1)
        self.optimizers = make_optimizers(options, self.networks)
        self.schedulers = {
            name: make_scheduler(
                optimizer,
                options.lr_policy,
                options.niter,
                options.niter_decay,
                options.epoch_count,
                options.lr_decay_iters,
            )
            for name, optimizer in self.optimizers.items()
        }
        self.parts = parts_for_texture(self.G_A)
        self.teacher: SRGenerator | None = None
        self.compiled: dict[nn.Module, Any] = {}
        self.fused: dict[nn.Module, Any] = {}
        self.make_faster(*self.networks.values(), *self.parts.values())

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The four networks by the paper's names."""
        return {name: getattr(self, name) for name in NETWORKS}

    def make_faster(self, *networks: nn.Module) -> None:
        """Let the fused engine run networks, or torch's compiler, where asked for and served."""
        if self.options.compile:
            compiled = {network: torch.compile(network, dynamic=False) for network in networks}
            self.compiled |= compiled
        if self.options.engine != "fused":
            return
        # Batch norm gathers running statistics, which torch's own layer does.
        served = [network for network in networks if not has_batch_norm(network)]
        dtype = torch.bfloat16 if self.options.precision == "bf16" else torch.float32
        made = {network: fused_network(network, dtype, self.device) for network in served}
        self.fused |= {network: fused for network, fused in made.items() if fused is not None}

    def run(self, network: nn.Module, images: Tensor) -> Tensor:
        """Apply `network` in the chosen precision; the result is float32."""
        if network in self.fused:
            output: Tensor = self.fused[network](images)
            return output.float()
        halved = self.options.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=halved):
            output = self.compiled.get(network, network)(images)
        return output.float()

    def learn_from(self, teacher: SRGenerator) -> None:
        """Let G_A learn what a teacher makes of pseudo-pairs in place of their truth.

        Args:
            teacher: of the same scale; in evaluation mode afterwards, on the model's device.
        """
        self.teacher = teacher.to(self.device).eval().requires_grad_(False)
        self.make_faster(teacher)

    @torch.no_grad()
    def lesson(self, images: Tensor, truth: Tensor) -> Tensor:
        """What G_A shall make of images: the truth, or what the teacher makes of them."""
        return truth if self.teacher is None else self.run(self.teacher, images)

    def textured(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Two draws of G_A's texture for each of (N, 1, H, W); only its texture layers are taught.

        The best estimate stays what the other losses make of it.
        """
        generator, parts = self.G_A, self.parts
        noises = int(generator.architecture["texture"])
        with torch.no_grad():
            features = self.run(parts["trunk"], images).repeat(2, 1, 1, 1)
            noise = torch.randn(len(features), noises, *features.shape[2:], device=features.device)
        features = features + self.run(parts["texture"], torch.cat([features, noise], dim=1))
        with held(parts["tail"]):
            output = self.run(parts["tail"], features)
        one, other = generator.joined(output, images.repeat(2, 1, 1, 1)).chunk(2)
        return one, other

    @property
    def learning_rate(self) -> float:
        """Learning rate of the generators in this epoch."""
        return float(self.optimizers["G"].param_groups[0]["lr"])

    def resume_learning_rate(self, before: float) -> None:
        """Go on at the saved point of the schedule with the options' own rate and epochs.

        Args:
            before: start value of the learning rate of the run so far.
        """
        for name, optimizer in self.optimizers.items():
            resume_rate(optimizer, self.schedulers[name], before, self.options.lr)

    def end_epoch(self, generator_loss: float) -> None:
        """Step the learning rate; `generator_loss` is the epoch's mean of G (plateau policy)."""
        for scheduler in self.schedulers.values():
            step_scheduler(scheduler, generator_loss)

    def state_dict(self) -> dict[str, Any]:
        """What all processes share: networks, their average, optimisers and schedulers."""
        return {
            "networks": {name: net.state_dict() for name, net in self.networks.items()},
            "optimizers": {name: opt.state_dict() for name, opt in self.optimizers.items()},
            "schedulers": {name: s.state_dict() for name, s in self.schedulers.items()},
            "average": None if self.average is None else self.average.state_dict(),
        }

    def pools_state(self) -> dict[str, Any]:
        """The image pools, which each process has of its own."""
        return {"A": self.pool_A.state_dict(), "B": self.pool_B.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state made by `state_dict`; an average that it lacks starts from its weights.

        Raises:
            RuntimeError: the weights are of another architecture (torch names the keys).
        """
        self.load_networks(state["networks"])
        for name, optimizer in self.optimizers.items():
            saved = state["optimizers"][name]
            changes = {"betas": (self.options.beta1, ADAM_BETA2), "fused": True}
            # Before loading, which puts the step counts where a fused optimiser wants them.
            groups = [{**group, **changes} for group in saved["param_groups"]]
            optimizer.load_state_dict({**saved, "param_groups": groups})
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][name])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])

    def load_pools(self, state: Mapping[str, Any]) -> bool:
        """Load pools saved by `pools_state`; returns whether their images have today's size."""
        edges = self.options.clinical_patch_size, self.options.micro_patch_size
        loaded = [
            pool.load_state_dict(state[name], edge, self.device)
            for name, pool, edge in zip("AB", (self.pool_A, self.pool_B), edges, strict=True)
        ]
        return all(loaded)

    def load_networks(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load the four state dicts alone, as the original code saves them."""
        for name, network in self.networks.items():
            network.load_state_dict(weights[name])
        if self.average is not None:
            self.average.network.load_state_dict(weights["G_A"])
