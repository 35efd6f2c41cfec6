"""Names of the numbers that a training step leaves, in the order of loss_log.csv."""

from __future__ import annotations

MULTI_MODALITY = ("downsample", "upsample", "clinical_ssim", "micro_ssim")
BEYOND = (
    "pair",
    "stability",
    "lattice",
    "texture",
    "supervised",
)  # not of the paper, see docs/method.md
CYCLE_GAN = ("D_A", "G_A", "cycle_A", "idt_A", "D_B", "G_B", "cycle_B", "idt_B")
LOSSES = (*CYCLE_GAN, *MULTI_MODALITY, *BEYOND, "G")
CRITIC = (
    "D_A",
    "D_B",
    "D_A_right",  # share of D_A's scores on the right side, over real and generated images
    "D_B_right",
)
# Equal in all processes that train together anyway, or no means.
OWN = (
    "norm_G",  # of the gradients, before clipping
    "norm_D",
    "learning_rate",
    "skipped",  # 1 where a step was left out, see models.optimisation.guarded_step
)
LOGGED = ("D_A_right", "D_B_right", *OWN, *LOSSES)
