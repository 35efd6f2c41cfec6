"""Names of the networks, and of the numbers that a step of training leaves."""

from __future__ import annotations

NETWORKS = ("G_A", "G_B", "D_A", "D_B")
MULTI_MODALITY = ("downsample", "upsample", "clinical_ssim", "micro_ssim")
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
    "G",
)
HEALTH = (
    "D_A_right",  # share of D_A's scores on the right side, over real and generated images
    "D_B_right",
    "norm_G",  # of the gradients, before clipping
    "norm_D",
    "skipped",  # 1 where a step was left out, see models.guarded_step
)
LOGGED = (*HEALTH, *LOSSES)
