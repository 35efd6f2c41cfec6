"""Names of the networks, and of the numbers that a step of training leaves."""

from __future__ import annotations

NETWORKS = ("G_A", "G_B", "D_A", "D_B")
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
    "skipped",  # 1 where a step was left out, see models.guarded_step
)
# Numbers of a process that are equal in all of them anyway, or that are no means.
OWN = ("norm_G", "norm_D", "learning_rate", "skipped")
LOGGED = (*HEALTH, *LOSSES)
