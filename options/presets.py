"""Presets: named sets of option values, sized for a machine or true to the paper.

A flag given on the command line always wins over its preset. `--list` prints them, with all else
that there is to choose from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Loss weights that the published 4x setting changes (docs/method.md, table of losses).
X4_DEFAULTS: dict[str, object] = {
    "sampling_times": 2,
    "lambda_downsample_loss": 0.7,
    "lambda_upsample_loss": 0.3,
}

# The published configuration; these are the parser's defaults and are repeated here so that the
# preset can be read, printed and tested.
PAPER: dict[str, object] = {
    "ngf": 64,
    "ndf": 64,
    "batch_size": 4,
    "batch_num": 2000,
    "niter": 100,
    "niter_decay": 100,
    "lr": 1e-5,
}

# Its faults included: each value is one row of the deviations table in docs/method.md.
PAPER_EXACT: dict[str, object] = {
    **PAPER,
    "normalization": "minmax",
    "lr_policy": "constant",
    "degradation": "zoom",
    "serial_batches": True,
    "fixed_patches": True,
    "ssim_data_range": 1.0,
}

# Two CPU cores, under ten minutes with the phantom's generation (docs/results.md has timings): a
# quarter of the channels, one patch a step, a learning rate that moves in hundreds of steps, a
# small adversarial weight, since in so few steps a full one leaves checkerboards, and no identity
# loss, which alone would take half of each step.
DEMO_FROM_SCRATCH: dict[str, object] = {
    "ngf": 16,
    "ndf": 16,
    "batch_size": 1,
    "batch_num": 125,
    "niter": 1,
    "niter_decay": 1,
    "lr": 5e-4,
    "lambda_G_A": 0.05,
    "lambda_identity": 0.0,
    "scanner": "random",
    "num_threads": 0,
    "print_freq": 10,
    "display_freq": 50,
    "update_html_freq": 50,
    "save_latest_freq": 100,
}

# As long, from the weights that come with the project, where they fit: their network, the paper's
# losses with the same small adversarial weight, a rate that does not undo what they have learned,
# and pseudo-pairs of random scanners, by which they were taught. G_B with all its channels takes
# most of a step, so patches are small, and discriminators see 16 pixels.
DEMO: dict[str, object] = {
    **DEMO_FROM_SCRATCH,
    "ngf": 64,
    "norm": "none",
    "skip": "cubic",
    "netD": "n_layers",
    "n_layers_D": 1,
    "clinical_patch_size": 16,
    "batch_num": 65,
    "lr": 5e-5,
    "ema": 0.99,
    "lambda_pair": 20.0,
    "lambda_stability": 1.0,
    "lambda_lattice": 1000.0,
}
# The same networks and losses for less time (docs/training.md compares): the learning rate of
# CycleGAN itself, one patch a step, bf16, a crop as large as a clinical patch for idt_A, and a
# moving average that steadies what such a rate makes of single steps.
FAST: dict[str, object] = {
    **PAPER,
    "batch_size": 1,
    "lr": 2e-4,
    "niter": 20,
    "niter_decay": 20,
    "precision": "bf16",
    "identity_crop": 32,
    "ema": 0.99,
}

# What the phantom benchmark likes best (docs/benchmark.md), and what made the weights that come
# with the project: a generator without norm beside the cubic enlargement, taught by pseudo-pairs,
# another look at them, and no grid. Nothing else has a weight, so that G_A alone is trained. With
# an adversarial weight the discriminator sees 34 pixels, several alveoli, and is light enough not
# to take most of the time.
BEST: dict[str, object] = {
    **PAPER,
    "norm": "none",
    "skip": "cubic",
    "init_icnr": True,
    "ndf": 32,
    "netD": "n_layers",
    "n_layers_D": 2,
    "batch_size": 8,
    "micro_mix": 0.0,
    "niter": 20,
    "niter_decay": 20,
    "lr": 2e-4,
    "beta1": 0.9,
    "precision": "bf16",
    "ema": 0.999,
    "scanner": "random",
    "lambda_pair": 5.0,
    "lambda_stability": 0.6,
    "lambda_lattice": 300.0,
    "lambda_G_A": 0.0,
    "lambda_G_B": 0.0,
    "lambda_A": 0.0,
    "lambda_B": 0.0,
    "lambda_identity": 0.0,
    "lambda_downsample_loss": 0.0,
    "lambda_upsample_loss": 0.0,
    "lambda_clinical_ssim": 0.0,
    "lambda_micro_ssim": 0.0,
}

# What users' own data get on a GPU: on from the weights that come with the project, by the losses
# that made them, at a rate that does not undo what they have learned (docs/training.md has
# results).
ADAPT: dict[str, object] = {**BEST, "niter": 5, "niter_decay": 5, "lr": 1e-4}

# Texture for those weights: layers that turn noise into what the best estimate leaves out
# (docs/method.md). Nothing else has a weight, so that all else of them stays as it is. Slabs are
# thick, since the noise of thin micro-CT would be learned too.
TEXTURE: dict[str, object] = {
    **BEST,
    "texture_noise": 16,
    "lambda_texture": 1.0,
    "lambda_pair": 0.0,
    "lambda_stability": 0.0,
    "lambda_lattice": 0.0,
    "scanner_thickness": [0.6, 1.0],
    "lr": 5e-4,
    "niter": 5,
    "niter_decay": 5,
}

PRESETS: dict[str, dict[str, object]] = {
    "paper": PAPER,
    "adapt": ADAPT,
    "texture": TEXTURE,
    "best": BEST,
    "fast": FAST,
    "paper_exact": PAPER_EXACT,
    "demo": DEMO,
}
# Where those weights do not fit, these take the place of the presets that start from them.
FROM_SCRATCH = {
    "demo": DEMO_FROM_SCRATCH,
    "adapt": BEST,
    "texture": {
        **BEST,
        "texture_noise": 16,
        "lambda_texture": 1.0,
        "scanner_thickness": [0.6, 1.0],
    },
}
PRESET_NOTES = {
    "auto": "adapt where CUDA is found, else demo",
    "adapt": "from the weights that come with the project on, by the losses of best",
    "texture": "layers for --texture at test time, added to those weights",
    "paper": "the paper's networks, losses, sizes and schedule",
    "best": "what the phantom benchmark likes best",
    "fast": "the paper's networks in a fraction of the time",
    "paper_exact": "its known faults too, for comparison",
    "demo": "minutes on a CPU, from the weights that come with the project",
}
# What the weights are built from: another value asks for another network.
ARCHITECTURE: dict[str, object] = {
    "ngf": 64,
    "norm": "none",
    "skip": "cubic",
    "clinical2micronetG": "sr_resnet_9blocks",
}
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


def preset_values(
    preset: str, times: int, given: Mapping[str, object], from_scratch: bool
) -> dict[str, object]:
    """A preset's values: from the weights that come with the project where it starts from them.

    Args:
        preset: one of PRESETS.
        times: n of the enlargement 2^n.
        given: the options that the command line states, with their values.
        from_scratch: whether --from_scratch is among them.
    """
    values = PRESETS[preset]
    if preset not in FROM_SCRATCH:
        return values
    weights = WEIGHTS / f"sr_x{2**times}.safetensors"
    fits = all(given.get(name, value) == value for name, value in ARCHITECTURE.items())
    own = "init_weights" in given  # weights of the user's, whatever their network
    if from_scratch or not (own or (fits and weights.is_file())):
        return FROM_SCRATCH[preset]
    values = {**values, "init_weights": str(weights)}
    if given.keys() & {"micro_patch_size", "netD", "n_layers_D"}:
        values.pop("clinical_patch_size", None)  # it follows from the one, or fits the others
    return values


MODELS = {
    "medical_cycle_gan": "2, 4, 8 or 16 times in plane; 8 times without --sampling_times",
    "medical_cycle_ganx4": "the published 4x setting: loss weights and nearest identity",
}
DATASETS = {
    "unpaired": "clinical CT and micro-CT of different lungs (the paper)",
    "public_2D": "clinical CT alone, shrunk by itself",
    "paired": "each micro volume shows the field of its clinical one, as the phantom's do",
}
METHODS = {
    "smallpatchtest": "super-resolve clinical CT",
    "stabilitytest": "tell how stable the enlargement of clinical CT is, slice by slice",
    "microCTsmallpatchtest": "score a model on micro-CT that is shrunk and restored",
    "wholevolumetest": "score a model on clinical CT that is shrunk and restored",
    "phantomtest": "score models against the truth of phantom patients",
    "pairtest": "the same against the truths of registered pairs of one's own",
}
CHOICES = {
    "models (train.py --model)": MODELS,
    "data (train.py --dataset_mode)": DATASETS,
    "presets (train.py --preset)": PRESET_NOTES,
    "methods (medicaltest.py --method)": METHODS,
}


def listing() -> str:
    """All choices with a line each."""
    lines = []
    for title, choices in CHOICES.items():
        lines.append(title)
        lines += [f"  {name:<24}{what}" for name, what in choices.items()]
    return "\n".join([*lines, *(say() for say in ALSO_LISTED)])


# What scripts add to the list, since nothing but the standard library is known here.
ALSO_LISTED: list[Callable[[], str]] = []


class ListChoices(argparse.Action):
    """Prints the choices and leaves with exit code 0, as --help does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=rest.get("help")
        )

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        print(listing())
        parser.exit()
