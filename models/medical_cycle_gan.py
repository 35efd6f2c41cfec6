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

from models.base_model import BaseModel, make_scanner
from models.drawn_texture import energy_score
from models.graphed_step import GraphedStep
from models.loss_names import CRITIC, OWN
from models.losses import (
    GANLoss,
    another_look,
    enlarge_identity,
    enlarge_nearest,
    finite,
    gradient_penalty,
    lattice_power,
    noise_where_constant,
    pool,
    random_crop,
    ssim,
)
from models.networks import even_out_shuffles
from models.optimisation import guarded_step
from util.processes import ALONE, Processes

IDT_B_SHARE = 0.1  # the published factor that holds the shrinking identity back

# Generated image -> the weights of the losses that look at it.
LOOKED_AT_BY = {
    "fake_B": (
        "lambda_G_A", "lambda_A", "lambda_downsample_loss", "lambda_clinical_ssim",
        "lambda_lattice", "lambda_supervised",
    ),
    "rec_A": ("lambda_A",),
    "fake_A": ("lambda_G_B", "lambda_B", "lambda_upsample_loss", "lambda_micro_ssim"),
    "rec_B": ("lambda_B",),
}  # fmt: skip
# Pictures of the training page in their order; a row begins with each real image.
SHOWN = (
    "real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B", "scanned_B", "restored_B",
    "textured_B",
)  # fmt: skip

Loss = tuple[float, Callable[[], Tensor]]
"""A weight, and what computes the loss that it belongs to; called where the weight is above 0."""


class MedicalCycleGANModel(BaseModel):
    """The losses and one step of training.

    Args:
        options: parsed training options (see options/train_options.py); this class is the one
            place in models/ that takes the whole bag.
        device: where to compute.
        processes: those that train this model together; gradients and losses are their means.
    """

    identity_mode = "bilinear"  # U of idt_B, published for 8x

    def __init__(
        self, options: Namespace, device: torch.device, processes: Processes = ALONE
    ) -> None:
        super().__init__(options, device, processes)
        self.scale: int = 2**options.sampling_times
        self.gan_loss = GANLoss(options.gan_mode)
        self.scanner = make_scanner(options)
        self.losses: dict[str, Tensor] = {}
        self._images: dict[str, Tensor] = {}
        self.steps = 0
        self.graphed: GraphedStep | None = None
        if self.fused and self.device.type == "cuda" and self.is_recordable():
            self.graphed = GraphedStep(self)

    def set_input(self, batch: Mapping[str, Tensor]) -> None:
        """Take a batch {"clinical": (N, 1, p, p), "micro": (N, 1, p * scale, p * scale)}.

        "shrunk" (N,) may say which clinical patches are area averages, for the scanner to see.
        """
        self.real_A = batch["clinical"].to(self.device, non_blocking=True)
        if "shrunk" in batch:
            shrunk = batch["shrunk"].to(self.device, non_blocking=True).view(-1, 1, 1, 1)
            self.real_A = torch.where(shrunk, self.scanner.acquire(self.real_A), self.real_A)
        self.real_B = batch["micro"].to(self.device, non_blocking=True)
        if self.graphed is not None:
            self.real_A, self.real_B = self.graphed.place(self.real_A, self.real_B)
        self._images = {}

    def forward(self) -> None:
        """Compute those of fake_B, rec_A, fake_A and rec_B that a loss looks at."""
        self._images = {}
        for image, weights in LOOKED_AT_BY.items():
            if any(getattr(self.options, weight) > 0 for weight in weights):
                getattr(self, image)

    @property
    def fake_B(self) -> Tensor:
        """G_A(real_A)."""
        return self._once("fake_B", lambda: self.run(self.G_A, self.real_A))

    @property
    def rec_A(self) -> Tensor:
        """G_B(fake_B)."""
        return self._once("rec_A", lambda: self.run(self.G_B, noise_where_constant(self.fake_B)))

    @property
    def fake_A(self) -> Tensor:
        """G_B(real_B)."""
        return self._once("fake_A", lambda: self.run(self.G_B, self.real_B))

    @property
    def rec_B(self) -> Tensor:
        """G_A(fake_A)."""
        return self._once("rec_B", lambda: self.run(self.G_A, noise_where_constant(self.fake_A)))

    @property
    def pooled_B(self) -> Tensor:
        """P(fake_B), as large as real_A."""
        return self._once("pooled_B", lambda: pool(self.fake_B, self.scale))

    @property
    def enlarged_A(self) -> Tensor:
        """N(fake_A), as large as real_B."""
        return self._once("enlarged_A", lambda: enlarge_nearest(self.fake_A, self.scale))

    @property
    def scanned_B(self) -> Tensor:
        """real_B as a scanner would have seen it, as large as real_A."""
        return self._once("scanned_B", lambda: self.scanner(self.real_B))

    @property
    def restored_B(self) -> Tensor:
        """G_A(scanned_B)."""
        return self._once("restored_B", lambda: self.run(self.G_A, self.scanned_B))

    def _once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """An image of this batch, computed when it is first looked at."""
        if name not in self._images:
            self._images[name] = compute()
        return self._images[name]

    def generator_losses(self) -> dict[str, Loss]:
        """The losses of both generators by name (docs/method.md has each formula)."""
        o = self.options
        # The identity losses stand for the steps without them, too.
        identity = o.lambda_identity * o.identity_every * (self.steps % o.identity_every == 0)
        return {
            # Adversarial: the discriminators shall take generated images for real ones.
            "G_A": (o.lambda_G_A, lambda: self.adversarial(self.D_A, self.fake_B)),
            "G_B": (o.lambda_G_B, lambda: self.adversarial(self.D_B, self.fake_A)),
            # Cycle consistency: there and back again is the same image.
            "cycle_A": (o.lambda_A, lambda: F.l1_loss(self.rec_A, self.real_A)),
            "cycle_B": (o.lambda_B, lambda: F.l1_loss(self.rec_B, self.real_B)),
            # Identity: an image of the other domain already stays what it is. Its weight is a share
            # of the cycle's.
            "idt_A": (
                identity * (o.lambda_B > 0),
                lambda: self.identity_of_G_A() * o.lambda_B,
            ),
            "idt_B": (
                identity * (o.lambda_A > 0),
                lambda: self.identity_of_G_B() * o.lambda_A * IDT_B_SHARE,
            ),
            # The four-part multi-modality loss: the image stays the same image across domains.
            "downsample": (o.lambda_downsample_loss, lambda: F.l1_loss(self.pooled_B, self.real_A)),
            "upsample": (o.lambda_upsample_loss, lambda: F.l1_loss(self.enlarged_A, self.real_B)),
            "clinical_ssim": (
                o.lambda_clinical_ssim,
                lambda: 1 - ssim(self.pooled_B, self.real_A, o.ssim_data_range),
            ),
            "micro_ssim": (
                o.lambda_micro_ssim,
                lambda: 1 - ssim(self.enlarged_A, self.real_B, o.ssim_data_range),
            ),
            # Beyond the paper: pseudo-pairs of a scanner model, another look at their tissue, no
            # grid, texture, and registered pairs.
            "pair": (
                o.lambda_pair,
                lambda: F.mse_loss(self.restored_B, self.lesson(self.scanned_B, self.real_B)),
            ),
            "stability": (o.lambda_stability, self.instability_of_G_A),
            "lattice": (o.lambda_lattice, self.lattice_of_G_A),
            "texture": (o.lambda_texture, self.score_of_texture),
            "supervised": (o.lambda_supervised, lambda: F.mse_loss(self.fake_B, self.real_B)),
        }

    def adversarial(self, discriminator: nn.Module, fake: Tensor) -> Tensor:
        """How far `discriminator` is from taking generated images for real ones."""
        return self.gan_loss(self.run(discriminator, fake), real=True)

    def instability_of_G_A(self) -> Tensor:
        """L1 between what is made of two looks at the same pseudo-pair."""
        again = self.run(self.G_A, another_look(self.scanned_B)).flip(-1)
        return F.l1_loss(again, self.restored_B)

    def lattice_of_G_A(self) -> Tensor:
        """Power of the grid in pseudo-pairs, beyond their truth's, and in clinical patches."""
        of_pairs = lattice_power(self.restored_B - self.real_B, self.scale)
        return of_pairs + lattice_power(self.fake_B, self.scale)

    def score_of_texture(self) -> Tensor:
        """Energy score of two draws for a pseudo-pair against its truth."""
        one, other = self.textured(self.scanned_B)
        self._images["textured_B"] = one.detach()
        return energy_score(one, other, self.real_B)

    def identity_of_G_A(self) -> Tensor:
        """L1(P(G_A(B)), B). G_A on a micro patch is the dearest pass of all, so a crop may do."""
        edge = self.options.identity_crop
        micro = random_crop(self.real_B, edge) if edge else self.real_B
        return F.l1_loss(pool(self.run(self.G_A, micro), self.scale), micro)

    def identity_of_G_B(self) -> Tensor:
        """L1(U(G_B(A)), A)."""
        shrunk = self.run(self.G_B, self.real_A)
        return F.l1_loss(enlarge_identity(shrunk, self.scale, self.identity_mode), self.real_A)

    def generator_loss(self) -> Tensor:
        """Sum of all generator losses by their weights; keeps each in `losses`."""
        total = nothing = self.real_A.new_zeros(())
        for name, (weight, compute) in self.generator_losses().items():
            loss = compute() * weight if weight > 0 else nothing
            self.losses[name] = loss.detach()
            total = total + loss
        self.losses["G"] = total.detach()
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
        graphed = self.graphed
        step = graphed if graphed is not None and graphed.fits(self.real_A) else self
        skipped = step.train_generators()
        if self.average is not None:
            self.average.update(self.G_A)
        fakes = self.remembered_fakes()
        self.losses["skipped"] = torch.maximum(skipped, step.train_discriminators(fakes))
        self.losses["learning_rate"] = self.real_A.new_full((), self.learning_rate)
        self.steps += 1

    def train_generators(self) -> Tensor:
        """The first half of a step; returns 1 where it was left out, else 0."""
        self.forward()
        self._freeze_discriminators(True)
        self.optimizers["G"].zero_grad(set_to_none=True)
        self.generator_loss().backward()
        self.losses["norm_G"], skipped = guarded_step(
            self.optimizers["G"], self.processes, self.options.clip_gradient
        )
        was_taught = next(self.G_A.tail.parameters()).grad is not None
        if self.options.norm == "none" and was_taught:
            even_out_shuffles(self.G_A)
        return skipped

    def remembered_fakes(self) -> dict[str, Tensor]:
        """What the pools hand back for fake_B and fake_A; of those that G's loss listens to."""
        # Never an image that is not finite: it would come back later, out of the pool.
        fakes = {}
        if self.options.lambda_G_A > 0:
            fakes["D_A"] = self.pool_B.query(finite(self.fake_B.detach()))
        if self.options.lambda_G_B > 0:
            fakes["D_B"] = self.pool_A.query(finite(self.fake_A.detach()))
        return fakes

    def train_discriminators(self, fakes: Mapping[str, Tensor]) -> Tensor:
        """The second half of a step; returns 1 where it was left out, else 0.

        Args:
            fakes: discriminator's name -> generated images that it shall learn to tell.
        """
        self._freeze_discriminators(False)
        zero = self.real_A.new_zeros(())
        self.losses.update(dict.fromkeys((*CRITIC, "norm_D"), zero))
        self.optimizers["D"].zero_grad(set_to_none=True)
        for name, fake in fakes.items():
            real = self.real_B if name == "D_A" else self.real_A
            self.discriminator_loss(name, real, fake).backward()
        mine = [loss for name, loss in self.losses.items() if name not in OWN]
        if not fakes:
            self.processes.average(mine)
            return zero
        self.losses["norm_D"], skipped = guarded_step(
            self.optimizers["D"], self.processes, self.options.clip_gradient, also_average=mine
        )
        return skipped

    def _freeze_discriminators(self, frozen: bool) -> None:
        for network in (self.D_A, self.D_B):
            network.requires_grad_(not frozen)

    def is_recordable(self) -> bool:
        """Whether every step does the same on the device, without a say of the host's."""
        o = self.options
        same = o.identity_every == 1 and o.identity_crop is None and o.gan_mode != "wgangp"
        return same and self.processes.count == 1

    def results(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the last step left by name: losses, and images."""
        return self.losses, self._images

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As the base's; a recorded step would go on with the moments of before."""
        super().load_state_dict(state)
        if self.graphed is not None:
            self.graphed = GraphedStep(self)

    def pictures(self) -> dict[str, Tensor]:
        """First image of the last batch in every role: (H, W) in [-1, 1] on the CPU.

        Without those that no loss looked at. Empty before the first batch, as when a run goes on
        where an epoch's last step was done.
        """
        if not self._images:
            return {}
        there = {"real_A": self.real_A, "real_B": self.real_B, **self._images}
        return {role: there[role][0, 0].detach().float().cpu() for role in SHOWN if role in there}


class MedicalCycleGANx4Model(MedicalCycleGANModel):
    """The published 4x setting: two shuffles, and nearest enlargement in idt_B."""

    identity_mode = "nearest"


MODELS: dict[str, type[MedicalCycleGANModel]] = {
    "medical_cycle_gan": MedicalCycleGANModel,
    "medical_cycle_ganx4": MedicalCycleGANx4Model,
}
