"""SR-CycleGAN: two generators, two discriminators and one training step.

Names follow the paper: A is clinical, B is micro. G_A enlarges, G_B shrinks, D_A judges micro
images, D_B clinical ones; fake_B = G_A(real_A), rec_A = G_B(fake_B), fake_A = G_B(real_B),
rec_B = G_A(fake_A). All images are (N, 1, H, W) float32 in [-1, 1].
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base_model import TrainedNetworks
from models.fused.network import FusedNetwork
from models.losses import (
    GANLoss,
    clinical_consistency,
    enlarge_identity,
    gradient_penalty,
    micro_consistency,
    noise_where_constant,
    pool,
    random_crop,
)
from models.optimisation import guarded_step
from models.scanner_model import ScannerModel
from util.processes import ALONE, Processes

MULTI_MODALITY = ("downsample", "upsample", "clinical_ssim", "micro_ssim")
BEYOND = ("pair", "supervised")  # not of the paper, see docs/method.md
GENERATOR_LOSSES = (
    "G_A",
    "G_B",
    "cycle_A",
    "cycle_B",
    "idt_A",
    "idt_B",
    *MULTI_MODALITY,
    *BEYOND,
)
LOSSES = (
    "D_A",
    "G_A",
    "cycle_A",
    "idt_A",
    "D_B",
    "G_B",
    "cycle_B",
    "idt_B",
    *MULTI_MODALITY,
    *BEYOND,
    "G",
)
# Generated image -> the weights of the losses that look at it.
LOOKED_AT_BY = {
    "fake_B": (
        "lambda_G_A",
        "lambda_A",
        "lambda_downsample_loss",
        "lambda_clinical_ssim",
        "lambda_supervised",
    ),
    "rec_A": ("lambda_A",),
    "fake_A": ("lambda_G_B", "lambda_B", "lambda_upsample_loss", "lambda_micro_ssim"),
    "rec_B": ("lambda_B",),
}
DISCRIMINATOR_LOSSES = (
    "D_A",
    "D_B",
    "D_A_right",  # share of D_A's scores on the right side, over real and generated images
    "D_B_right",
)
HEALTH = (
    "D_A_right",
    "D_B_right",
    "norm_G",  # of the gradients, before clipping
    "norm_D",
    "learning_rate",
    "skipped",  # 1 where a step was left out, see models.optimisation
)
# Numbers of a process that are equal in all of them anyway, or that are no means.
OWN = ("norm_G", "norm_D", "learning_rate", "skipped")
LOGGED = (*HEALTH, *LOSSES)


IDT_B_SHARE = 0.1  # the published factor that holds the shrinking identity back


class MedicalCycleGANModel(TrainedNetworks):
    """The losses and one step of training.

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
        super().__init__(options, devices[0], processes)
        self.devices = devices
        self.scale: int = 2**options.sampling_times
        self.gan_loss = GANLoss(options.gan_mode)
        self.scanner = ScannerModel(self.scale, options.pair_blur, options.pair_noise)
        self.losses: dict[str, Tensor] = {}
        self._images: dict[str, Tensor] = {}
        self.steps = 0
        self.compiled: dict[nn.Module, Any] = {}
        if options.compile:
            self.compiled = {network: torch.compile(network) for network in self.networks.values()}

    def set_input(self, batch: Mapping[str, Tensor]) -> None:
        """Take a batch {"clinical": (N, 1, p, p), "micro": (N, 1, p * scale, p * scale)}."""
        self.real_A = batch["clinical"].to(self.device, non_blocking=True)
        self.real_B = batch["micro"].to(self.device, non_blocking=True)
        self._images = {}

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
        """Compute those of fake_B, rec_A, fake_A and rec_B that a loss looks at."""
        self._images = {}
        for image, weights in LOOKED_AT_BY.items():
            if any(getattr(self.options, weight) > 0 for weight in weights):
                getattr(self, image)

    @property
    def fake_B(self) -> Tensor:
        """G_A(real_A)."""
        return self._generated("fake_B", self.G_A, lambda: self.real_A)

    @property
    def rec_A(self) -> Tensor:
        """G_B(fake_B)."""
        return self._generated("rec_A", self.G_B, lambda: noise_where_constant(self.fake_B))

    @property
    def fake_A(self) -> Tensor:
        """G_B(real_B)."""
        return self._generated("fake_A", self.G_B, lambda: self.real_B)

    @property
    def rec_B(self) -> Tensor:
        """G_A(fake_A)."""
        return self._generated("rec_B", self.G_A, lambda: noise_where_constant(self.fake_A))

    def _generated(self, name: str, network: nn.Module, source: Callable[[], Tensor]) -> Tensor:
        """An image of this batch, computed once."""
        if name not in self._images:
            self._images[name] = self.run(network, source())
        return self._images[name]

    def generator_loss(self) -> Tensor:
        """Sum of all generator losses by their weights (docs/method.md); keeps each in `losses`.

        What has weight 0 is not computed.
        """
        o = self.options
        total = self.real_A.new_zeros(())
        losses = dict.fromkeys(GENERATOR_LOSSES, total)
        if o.lambda_G_A > 0:
            scores = self.run(self.D_A, self.fake_B)
            losses["G_A"] = self.gan_loss(scores, real=True) * o.lambda_G_A
        if o.lambda_G_B > 0:
            scores = self.run(self.D_B, self.fake_A)
            losses["G_B"] = self.gan_loss(scores, real=True) * o.lambda_G_B
        if o.lambda_A > 0:
            losses["cycle_A"] = F.l1_loss(self.rec_A, self.real_A) * o.lambda_A
        if o.lambda_B > 0:
            losses["cycle_B"] = F.l1_loss(self.rec_B, self.real_B) * o.lambda_B
        if o.lambda_identity > 0 and self.steps % o.identity_every == 0:
            self._add_identity(losses)
        self._add_consistency(losses)
        if o.lambda_pair > 0:
            restored = self.run(self.G_A, self.scanner(self.real_B))
            losses["pair"] = F.l1_loss(restored, self.real_B) * o.lambda_pair
        if o.lambda_supervised > 0:
            losses["supervised"] = F.l1_loss(self.fake_B, self.real_B) * o.lambda_supervised
        for loss in losses.values():
            total = total + loss
        losses["G"] = total
        self.losses.update({name: loss.detach() for name, loss in losses.items()})
        return total

    def _add_identity(self, losses: dict[str, Tensor]) -> None:
        """idt_A and idt_B; G_A on a micro patch is the dearest pass of all."""
        o = self.options
        weight = o.lambda_identity * o.identity_every
        sample = random_crop(self.real_B, o.identity_crop) if o.identity_crop else self.real_B
        same_B = pool(self.run(self.G_A, sample), self.scale)
        same_A = enlarge_identity(self.run(self.G_B, self.real_A), self.scale, self.identity_mode)
        losses["idt_A"] = F.l1_loss(same_B, sample) * o.lambda_B * weight
        losses["idt_B"] = F.l1_loss(same_A, self.real_A) * o.lambda_A * weight * IDT_B_SHARE

    def _add_consistency(self, losses: dict[str, Tensor]) -> None:
        """The four-part multi-modality loss."""
        o = self.options
        parts: dict[str, Tensor] = {}
        if o.lambda_downsample_loss > 0 or o.lambda_clinical_ssim > 0:
            parts |= clinical_consistency(self.real_A, self.fake_B, self.scale, o.ssim_data_range)
        if o.lambda_upsample_loss > 0 or o.lambda_micro_ssim > 0:
            parts |= micro_consistency(self.real_B, self.fake_A, self.scale, o.ssim_data_range)
        weights = {
            "downsample": o.lambda_downsample_loss,
            "upsample": o.lambda_upsample_loss,
            "clinical_ssim": o.lambda_clinical_ssim,
            "micro_ssim": o.lambda_micro_ssim,
        }
        for name, loss in parts.items():
            losses[name] = loss * weights[name]

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
        self.losses["skipped"] = torch.maximum(skipped, self._train_discriminators())
        rate = self.optimizers["G"].param_groups[0]["lr"]
        self.losses["learning_rate"] = self.real_A.new_full((), rate)
        self.steps += 1

    def _train_discriminators(self) -> Tensor:
        """A step of those that G's loss listens to; returns 1 where it was left out, else 0."""
        zero = self.real_A.new_zeros(())
        self.losses.update(dict.fromkeys((*DISCRIMINATOR_LOSSES, "norm_D"), zero))
        listened_to = self.options.lambda_G_A > 0 or self.options.lambda_G_B > 0
        self.optimizers["D"].zero_grad(set_to_none=True)
        # Never an image that is not finite: it would come back later, out of the pool.
        if self.options.lambda_G_A > 0:
            fake_B = self.pool_B.query(torch.nan_to_num(self.fake_B.detach(), nan=0.0))
            self.discriminator_loss("D_A", self.real_B, fake_B).backward()
        if self.options.lambda_G_B > 0:
            fake_A = self.pool_A.query(torch.nan_to_num(self.fake_A.detach(), nan=0.0))
            self.discriminator_loss("D_B", self.real_A, fake_A).backward()
        mine = [loss for name, loss in self.losses.items() if name not in OWN]
        if not listened_to:
            self.processes.average(mine)
            return zero
        self.losses["norm_D"], skipped = guarded_step(
            self.optimizers["D"], self.processes, self.options.clip_gradient, also_average=mine
        )
        return skipped

    def _freeze_discriminators(self, frozen: bool) -> None:
        for network in (self.D_A, self.D_B):
            network.requires_grad_(not frozen)

    def pictures(self) -> dict[str, Tensor]:
        """First image of the last batch in every role: (H, W) in [-1, 1] on the CPU.

        Without those that no loss looked at. Empty before the first batch, as when a run goes on
        where an epoch's last step was done.
        """
        if not self._images:
            return {}
        there = {"real_A": self.real_A, "real_B": self.real_B, **self._images}
        roles = ("real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B")
        return {role: there[role][0, 0].detach().float().cpu() for role in roles if role in there}


class MedicalCycleGANx4Model(MedicalCycleGANModel):
    """The published 4x setting: two shuffles, and nearest enlargement in idt_B."""

    identity_mode = "nearest"


MODELS: dict[str, type[MedicalCycleGANModel]] = {
    "medical_cycle_gan": MedicalCycleGANModel,
    "medical_cycle_ganx4": MedicalCycleGANx4Model,
}
