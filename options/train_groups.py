"""The flags of train.py, one function a group of --help."""

from __future__ import annotations

import argparse

from options.base_options import (
    MODEL_NAMES,
    fraction,
    non_negative_float,
    positive_float,
    positive_int,
    whole_number,
)
from options.presets import PRESET_NOTES, PRESETS

BLOCK_CHOICES = ("6blocks", "9blocks")


def add_run_group(parser: argparse.ArgumentParser) -> None:
    """The experiment: preset, model, seed, checkpoints."""
    group = parser.add_argument_group("training run")
    group.add_argument(
        "--preset",
        choices=("auto", *PRESETS),
        default="auto",
        help=", ".join(f"{name} ({what})" for name, what in PRESET_NOTES.items()),
    )
    group.add_argument(
        "--model",
        choices=MODEL_NAMES,
        default="medical_cycle_gan",
        help="medical_cycle_gan (8x) or medical_cycle_ganx4 (4x, with its loss weights; taken for "
        "--dataset_mode public_2D unless --model or --sampling_times says otherwise)",
    )
    group.add_argument(
        "--suffix",
        default="",
        help="appended to the name; {option} is filled in, such as _ngf{ngf}",
    )
    group.add_argument(
        "--engine",
        choices=("fused", "eager"),
        default="fused",
        help="fused: convolutions with what stands before them, faster and in half the memory; "
        "eager: torch's layers one by one, as published (also taken for --norm batch)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the networks by torch.compile (with --engine eager): slow at first, and a "
        "C++ compiler is needed",
    )
    group.add_argument(
        "--summary",
        action="store_true",
        help="print networks, parameters, arithmetic and memory of a step, and stop",
    )
    group.add_argument("--seed", type=whole_number, default=0, help="of every random number")
    group.add_argument(
        "--continue_train",
        action="store_true",
        help="go on from the checkpoint of --epoch or --load_iter in the experiment's folder",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew although the experiment's folder already holds a model",
    )
    group.add_argument(
        "--save_latest_freq",
        type=positive_int,
        default=5000,
        help="steps between two savings of the latest checkpoint",
    )
    group.add_argument(
        "--save_every_minutes",
        type=positive_float,
        help="also write latest.pt when the last one is so old, where steps take long",
    )
    group.add_argument(
        "--save_epoch_freq",
        type=positive_int,
        default=5,
        help="epochs between two kept checkpoints",
    )
    group.add_argument(
        "--save_by_iter",
        action="store_true",
        help="also keep each of the --save_latest_freq checkpoints under its step's number",
    )
    group.add_argument(
        "--keep",
        type=whole_number,
        default=5,
        help="numbered checkpoints kept, the newest ones; 0 keeps all",
    )


def add_networks_group(parser: argparse.ArgumentParser) -> None:
    """Generators and discriminators."""
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--sampling_times",
        type=int,
        choices=(1, 2, 3, 4),
        default=3,
        help="n of the scale 2^n: 3 enlarges 8 times",
    )
    group.add_argument(
        "--clinical2micronetG",
        choices=[f"sr_resnet_{blocks}" for blocks in BLOCK_CHOICES],
        default="sr_resnet_9blocks",
        help="SR generator G_A",
    )
    group.add_argument(
        "--micro2clinicalnetG",
        choices=[f"resnet_{blocks}" for blocks in BLOCK_CHOICES],
        default="resnet_9blocks",
        help="downsampling generator G_B",
    )
    group.add_argument("--ngf", type=positive_int, default=64, help="generator channels")
    group.add_argument("--ndf", type=positive_int, default=64, help="discriminator channels")
    group.add_argument(
        "--netD",
        choices=("basic", "n_layers", "pixel"),
        default="basic",
        help="discriminators: basic (70x70 PatchGAN), n_layers (see --n_layers_D), pixel (1x1)",
    )
    group.add_argument(
        "--n_layers_D", type=positive_int, default=3, help="layers with --netD n_layers"
    )
    group.add_argument(
        "--norm", choices=("instance", "batch", "none"), default="instance", help="norm layers"
    )
    group.add_argument(
        "--skip",
        choices=("none", "cubic"),
        default="none",
        help="cubic: G_A adds to the cubic enlargement of its input; none: published, tanh",
    )
    group.add_argument(
        "--init_icnr",
        action="store_true",
        help="G_A starts without a checkerboard: equal weights for pixels shuffled side by side",
    )
    group.add_argument(
        "--init_weights",
        metavar="FILE",
        help="G_A starts from the weights of this checkpoint, .safetensors file or state dict",
    )
    group.add_argument(
        "--init_type",
        choices=("normal", "xavier", "kaiming", "orthogonal"),
        default="normal",
        help="how new weights are drawn",
    )
    group.add_argument(
        "--init_gain",
        type=non_negative_float,
        default=0.02,
        help="spread of new weights (normal, xavier, orthogonal)",
    )


def add_schedule_group(parser: argparse.ArgumentParser) -> None:
    """Optimisation: batch, epochs, learning rate."""
    group = parser.add_argument_group("schedule")
    group.add_argument("--batch_size", type=positive_int, default=4, help="patches a step")
    group.add_argument(
        "--niter", type=positive_int, default=100, help="epochs at the full learning rate"
    )
    group.add_argument(
        "--niter_decay",
        type=whole_number,
        default=100,
        help="epochs of decay after them",
    )
    group.add_argument(
        "--epoch_count",
        type=positive_int,
        default=1,
        help="number of the first epoch, where training starts from weights alone",
    )
    group.add_argument("--lr", type=non_negative_float, default=1e-5, help="learning rate of Adam")
    group.add_argument("--beta1", type=fraction, default=0.5, help="momentum of Adam")
    group.add_argument(
        "--lr_policy",
        choices=("linear", "step", "plateau", "cosine", "constant"),
        default="linear",
        help="decay of the learning rate; constant is what the published code does in effect",
    )
    group.add_argument(
        "--lr_decay_iters", type=positive_int, default=50, help="epochs a step (policy step)"
    )
    group.add_argument(
        "--clip_gradient",
        type=positive_float,
        help="largest norm of the gradients of both generators, and of both discriminators",
    )
    group.add_argument(
        "--ema",
        type=fraction,
        default=0.0,
        help="decay of a moving average of G_A's weights, such as 0.999, which tests then use",
    )
    group.add_argument(
        "--pool_size",
        type=whole_number,
        default=50,
        help="generated images remembered for each discriminator",
    )


def add_losses_group(parser: argparse.ArgumentParser) -> None:
    """Weights and constants of the losses."""
    group = parser.add_argument_group("losses (docs/method.md has the formulas)")
    group.add_argument(
        "--gan_mode", choices=("lsgan", "vanilla", "wgangp"), default="lsgan", help="GAN loss"
    )
    weights = (
        ("G_A", 1.0, "adversarial loss of G_A"),
        ("G_B", 1.0, "adversarial loss of G_B"),
        ("A", 1.0, "cycle clinical -> micro -> clinical"),
        ("B", 1.0, "cycle micro -> clinical -> micro"),
        ("identity", 0.2, "identity losses, relative to lambda_A and lambda_B"),
        ("downsample_loss", 1.0, "L1 of the averaged SR image and its input (4x: 0.7)"),
        ("upsample_loss", 1.0, "L1 of the repeated clinical image and its source (4x: 0.3)"),
        ("clinical_ssim", 1.0, "1 - SSIM of the averaged SR image and its input"),
        ("micro_ssim", 1.0, "1 - SSIM of the repeated clinical image and its source"),
        ("pair", 0.0, "L1 of a micro patch and G_A of its area average (not of the paper)"),
        ("supervised", 0.0, "L1 of G_A's image and the truth (needs --dataset_mode paired)"),
    )
    for name, default, text in weights:
        group.add_argument(f"--lambda_{name}", type=non_negative_float, default=default, help=text)
    group.add_argument(
        "--identity_crop",
        type=positive_int,
        help="edge in pixels of a random square of the micro patch for idt_A; else the whole patch",
    )
    group.add_argument(
        "--identity_every",
        type=positive_int,
        default=1,
        help="steps between two with the identity losses, which then weigh so much more",
    )
    group.add_argument(
        "--pair_blur",
        type=non_negative_float,
        default=0.0,
        help="the clinical kernel's point spread in --lambda_pair: full width at half maximum in "
        "clinical pixels",
    )
    group.add_argument(
        "--pair_noise",
        type=non_negative_float,
        default=0.0,
        help="the clinical noise there: standard deviation on the scale of [-1, 1] (25 HU in a "
        "window of 1500 HU are 0.033)",
    )
    group.add_argument(
        "--ssim_data_range",
        type=non_negative_float,
        default=2.0,
        help="span of the values in the SSIM constants: 2 for [-1, 1], 1 as published",
    )


def add_display_group(parser: argparse.ArgumentParser) -> None:
    """Reports, pictures and panels."""
    group = parser.add_argument_group("display (nothing here can end training)")
    group.add_argument(
        "--print_freq", type=positive_int, default=100, help="steps between two loss reports"
    )
    group.add_argument(
        "--display_freq", type=positive_int, default=400, help="steps between two pictures"
    )
    group.add_argument(
        "--update_html_freq",
        type=positive_int,
        default=1000,
        help="steps between two rows of the HTML page",
    )
    group.add_argument("--no_html", action="store_true", help="no HTML page of pictures")
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write TensorBoard files of curves and pictures (pip install tensorboard)",
    )
    group.add_argument(
        "--display_id", type=whole_number, default=0, help="visdom window; 0: no visdom"
    )
    group.add_argument(
        "--display_server", default="http://localhost", help="address of the visdom server"
    )
    group.add_argument("--display_port", type=positive_int, default=8097, help="its port")
    group.add_argument("--display_env", default="main", help="visdom environment")
    group.add_argument(
        "--display_ncols", type=positive_int, default=3, help="visdom pictures in a row"
    )
