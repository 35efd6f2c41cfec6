"""SR-CycleGAN: two generators, two discriminators and one training step.

Names follow the paper: A is clinical, B is micro. G_A enlarges, G_B shrinks, D_A judges micro
images, D_B clinical ones; fake_B = G_A(real_A), rec_A = G_B(fake_B), fake_A = G_B(real_B),
rec_B = G_A(fake_A). All images are (N, 1, H, W) float32 in [-1, 1].
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fused_network import FusedNetwork
from models.guarded_step import guarded_step
from models.image_pool import ImagePool
from models.loss_names import NETWORKS
from models.losses import (
    GANLoss,
    enlarge_identity,
    enliven,
    gradient_penalty,
    multi_modality_losses,
    pool,
    random_crop,
)
from models.networks import (
    DownsamplingGenerator,
    SRGenerator,
    initialise,
    make_discriminator,
)
from models.schedulers import make_scheduler, step_scheduler, take_up_rate
from models.weight_average import WeightAverage
from util.processes import ALONE, Processes

ADAM_BETA2 = 0.999
IDT_B_SHARE = 0.1  # the published factor that holds the shrinking identity back


def residual_blocks(name: str) -> int:
    """Number of residual blocks that a generator name such as sr_resnet_9blocks states."""
    return int(name.rsplit("_", 1)[1].removesuffix("blocks"))


class MedicalCycleGANModel:
    """Networks, losses, optimisers and one step of training.

    Args:
        options: parsed training options (see options/train_options.py); this class is the one
            place below the scripts that takes the whole bag.
        devices: where to compute; the first holds the weights, several split each batch.
        processes: those that train this model together; gradients and losses are their means.
    """

    identity_mode = "bilinear"  # U of idt_B, published for 8x

    def __init__(
        self, options: Namespace, devices: list[torch.device], processes: Processes = ALONE
    ) -> None:
        self.options = options
        self.processes = processes
        self.devices = devices
        self.device = devices[0]
        self.scale: int = 2**options.sampling_times
        self.G_A = SRGenerator(
            options.sampling_times,
            options.ngf,
            residual_blocks(options.clinical2micronetG),
            options.norm,
        )
        self.G_B = DownsamplingGenerator(
            options.sampling_times,
            options.ngf,
            residual_blocks(options.micro2clinicalnetG),
            options.norm,
        )
        self.D_A = make_discriminator(options.netD, options.ndf, options.n_layers_D, options.norm)
        self.D_B = make_discriminator(options.netD, options.ndf, options.n_layers_D, options.norm)
        for network in self.networks.values():
            initialise(network, options.init_type, options.init_gain)
            network.to(self.device)
        self.average = WeightAverage(self.G_A, options.ema) if options.ema > 0 else None
        seed = options.seed + 2 * processes.rank
        self.pool_A = ImagePool(options.pool_size, seed=seed)
        self.pool_B = ImagePool(options.pool_size, seed=seed + 1)
        self.gan_loss = GANLoss(options.gan_mode)
        betas = (options.beta1, ADAM_BETA2)
        self.optimizers = {
            name: torch.optim.Adam(
                [*first.parameters(), *second.parameters()], options.lr, betas, fused=True
            )
            for name, first, second in (("G", self.G_A, self.G_B), ("D", self.D_A, self.D_B))
        }
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
        self.losses: dict[str, Tensor] = {}
        self.steps = 0
        self.compiled: dict[nn.Module, Any] = {}
        if options.compile:
            self.compiled = {network: torch.compile(network) for network in self.networks.values()}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The four networks by the paper's names."""
        return {name: getattr(self, name) for name in NETWORKS}

    @property
    def learning_rate(self) -> float:
        """Learning rate of the generators in this epoch."""
        return float(self.optimizers["G"].param_groups[0]["lr"])

    def take_up_learning_rate(self, before: float) -> None:
        """Go on at the saved point of the schedule with the options' own rate and epochs.

        Args:
            before: start value of the learning rate of the run so far.
        """
        for name, optimizer in self.optimizers.items():
            take_up_rate(optimizer, self.schedulers[name], before, self.options.lr)

    def set_input(self, batch: Mapping[str, Tensor]) -> None:
        """Take a batch {"clinical": (N, 1, p, p), "micro": (N, 1, p * scale, p * scale)}."""
        self.real_A = batch["clinical"].to(self.device, non_blocking=True)
        self.real_B = batch["micro"].to(self.device, non_blocking=True)

    def run(self, network: nn.Module, images: Tensor) -> Tensor:
        """Apply `network` in the chosen precision, over all devices; the result is float32."""
        halved = self.options.precision == "bf16"
        # Batch norm gathers running statistics, which torch's own layer does.
        fused = self.options.engine == "fused" and self.options.norm != "batch"
        if fused:
            network = FusedNetwork(network, torch.bfloat16 if halved else torch.float32)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=halved and not fused):
            if len(self.devices) > 1:
                indices = [device.index for device in self.devices]
                output: Tensor = nn.parallel.data_parallel(network, images, indices)
            else:
                output = self.compiled.get(network, network)(images)
        return output.float()

    def forward(self) -> None:
        """Compute fake_B, rec_A, fake_A and rec_B of the batch."""
        self.fake_B = self.run(self.G_A, self.real_A)
        self.rec_A = self.run(self.G_B, enliven(self.fake_B))
        self.fake_A = self.run(self.G_B, self.real_B)
        self.rec_B = self.run(self.G_A, enliven(self.fake_A))

    def generator_loss(self) -> Tensor:
        """Sum of all generator losses by their weights (docs/method.md); keeps each in `losses`."""
        o = self.options
        losses: dict[str, Tensor] = {
            "G_A": self.gan_loss(self.run(self.D_A, self.fake_B), real=True) * o.lambda_G_A,
            "G_B": self.gan_loss(self.run(self.D_B, self.fake_A), real=True) * o.lambda_G_B,
            "cycle_A": F.l1_loss(self.rec_A, self.real_A) * o.lambda_A,
            "cycle_B": F.l1_loss(self.rec_B, self.real_B) * o.lambda_B,
        }
        zero = self.real_A.new_zeros(())
        losses["idt_A"], losses["idt_B"] = zero, zero
        # Skipped at 0: G_A on a micro patch is the dearest pass of all.
        if o.lambda_identity > 0 and self.steps % o.identity_every == 0:
            weight = o.lambda_identity * o.identity_every
            sample = random_crop(self.real_B, o.identity_crop) if o.identity_crop else self.real_B
            same_B = pool(self.run(self.G_A, sample), self.scale)
            same_A = enlarge_identity(
                self.run(self.G_B, self.real_A), self.scale, self.identity_mode
            )
            losses["idt_A"] = F.l1_loss(same_B, sample) * o.lambda_B * weight
            losses["idt_B"] = F.l1_loss(same_A, self.real_A) * o.lambda_A * weight * IDT_B_SHARE
        consistency = multi_modality_losses(
            self.real_A, self.fake_B, self.real_B, self.fake_A, self.scale, o.ssim_data_range
        )
        weights = {
            "downsample": o.lambda_downsample_loss,
            "upsample": o.lambda_upsample_loss,
            "clinical_ssim": o.lambda_clinical_ssim,
            "micro_ssim": o.lambda_micro_ssim,
        }
        total = sum(losses.values(), zero)
        for name, loss in consistency.items():
            losses[name] = loss * weights[name]
            total = total + losses[name]
        losses["G"] = total
        self.losses.update({name: loss.detach() for name, loss in losses.items()})
        return total

    def discriminator_loss(self, name: str, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of the losses on real images and on pooled, detached generated ones."""
        discriminator = self.networks[name]
        of_real, of_fake = self.run(discriminator, real), self.run(discriminator, fake)
        loss = 0.5 * (self.gan_loss(of_real, real=True) + self.gan_loss(of_fake, real=False))
        if self.gan_loss.mode == "wgangp":
            loss = loss + gradient_penalty(discriminator, real, fake)
        self.losses[name] = loss.detach()
        self.losses[f"{name}_right"] = self.gan_loss.share_right(of_real, of_fake)
        return loss

    def optimize_parameters(self) -> None:
        """One step: both generators with frozen discriminators, then both discriminators."""
        self.forward()
        self._freeze_discriminators(True)
        self.optimizers["G"].zero_grad(set_to_none=True)
        self.generator_loss().backward()
        self.losses["norm_G"], skipped = guarded_step(
            self.optimizers["G"], self.processes, self.options.clip_gradient
        )
        if self.average is not None:
            self.average.update(self.G_A)

        self._freeze_discriminators(False)
        self.optimizers["D"].zero_grad(set_to_none=True)
        # Never one that is not finite: it would come back later, out of the pool.
        fake_B = self.pool_B.query(torch.nan_to_num(self.fake_B.detach(), nan=0.0))
        self.discriminator_loss("D_A", self.real_B, fake_B).backward()
        fake_A = self.pool_A.query(torch.nan_to_num(self.fake_A.detach(), nan=0.0))
        self.discriminator_loss("D_B", self.real_A, fake_A).backward()
        mine = [loss for name, loss in self.losses.items() if not name.startswith(("norm", "skip"))]
        self.losses["norm_D"], skipped_D = guarded_step(
            self.optimizers["D"], self.processes, self.options.clip_gradient, also_average=mine
        )
        self.losses["skipped"] = torch.maximum(skipped, skipped_D)
        self.steps += 1

    def _freeze_discriminators(self, frozen: bool) -> None:
        for network in (self.D_A, self.D_B):
            network.requires_grad_(not frozen)

    def end_epoch(self, generator_loss: float) -> None:
        """Step the learning rate; `generator_loss` is the epoch's mean of G (plateau policy)."""
        for scheduler in self.schedulers.values():
            step_scheduler(scheduler, generator_loss)

    def pictures(self) -> dict[str, Tensor]:
        """First image of the last batch in every role: (H, W) in [-1, 1] on the CPU.

        Empty before the first batch, as when a run goes on where an epoch's last step was done.
        """
        if not hasattr(self, "rec_B"):
            return {}
        roles = ("real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B")
        return {role: getattr(self, role)[0, 0].detach().float().cpu() for role in roles}

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
        """Take up a state made by `state_dict`; an average that it lacks starts from its weights.

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

    def load_pools(self, state: Mapping[str, Any]) -> None:
        """Take up pools saved by `pools_state`."""
        self.pool_A.load_state_dict(state["A"], self.device)
        self.pool_B.load_state_dict(state["B"], self.device)

    def load_networks(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load the four state dicts alone, as the original code saves them."""
        for name, network in self.networks.items():
            network.load_state_dict(weights[name])
        if self.average is not None:
            self.average.network.load_state_dict(weights["G_A"])


class MedicalCycleGANx4Model(MedicalCycleGANModel):
    """The published 4x setting: two shuffles, and nearest enlargement in idt_B."""

    identity_mode = "nearest"


MODELS: dict[str, type[MedicalCycleGANModel]] = {
    "medical_cycle_gan": MedicalCycleGANModel,
    "medical_cycle_ganx4": MedicalCycleGANx4Model,
}
