"""The flags of train.py about data, one function a group of --help."""

from __future__ import annotations

import argparse

from options.base_options import fraction, positive_int, whole_number


def add_data_group(parser: argparse.ArgumentParser) -> None:
    """Volumes, windows and patches."""
    group = parser.add_argument_group("training data")
    group.add_argument(
        "--dataset_mode",
        choices=("unpaired", "public_2D", "paired"),
        default="unpaired",
        help="unpaired clinical CT and micro-CT; clinical CT alone, shrunk by itself; or paired: "
        "each micro volume shows the field of its clinical one, in the same order",
    )
    group.add_argument("--clinical_folder", help="folder of clinical CT volumes")
    group.add_argument("--micro_folder", help="folder of micro-CT volumes")
    for domain in ("clinical", "micro"):
        group.add_argument(
            f"--all_{domain}_paths",
            nargs="+",
            metavar="PATH",
            help=f"{domain} volumes: files, folders or globs, in place of or besides "
            f"--{domain}_folder",
        )
    group.add_argument(
        "--normalization",
        choices=("window", "minmax"),
        default="window",
        help="fixed windows kept with the weights, or each volume's own range as published",
    )
    group.add_argument(
        "--clinical_patch_size",
        type=positive_int,
        default=None,
        help="clinical patch edge in pixels (32; public_2D: 48)",
    )
    group.add_argument(
        "--micro_patch_size",
        type=positive_int,
        help="micro patch edge in pixels: clinical_patch_size * 2^sampling_times",
    )
    group.add_argument(
        "--batch_num",
        type=positive_int,
        default=2000,
        help="patches drawn from each clinical volume in an epoch",
    )
    group.add_argument(
        "--max_dataset_size",
        type=positive_int,
        help="patches in an epoch at the most, over all volumes",
    )
    group.add_argument(
        "--sampling",
        choices=("by_volume", "by_size"),
        default="by_volume",
        help="every volume as often as the others, or large ones more often by their patches",
    )
    group.add_argument(
        "--match_spacing",
        action="store_true",
        help="resample micro-CT to the clinical voxel size / 2^sampling_times, so that 8x is 8x in "
        "millimetres",
    )
    group.add_argument(
        "--micro_axes",
        choices=("z", "zy", "zx", "zyx"),
        default="z",
        help="slice isotropic micro-CT across these axes",
    )
    group.add_argument(
        "--micro_mix",
        type=fraction,
        default=0.25,
        help="share of shrunk micro patches among the clinical inputs (published: a quarter)",
    )
    group.add_argument("--no_flip", action="store_true", help="do not flip patches")
    group.add_argument(
        "--serial_batches",
        action="store_true",
        help="take patches in order and pair them by index, as published",
    )
    group.add_argument(
        "--fixed_patches",
        action="store_true",
        help="the same patches in every epoch, as published, instead of fresh ones",
    )
    group.add_argument(
        "--num_threads", type=whole_number, default=4, help="worker processes that load data"
    )


def add_validation_group(parser: argparse.ArgumentParser) -> None:
    """Held-back data, and what its scores decide."""
    group = parser.add_argument_group("validation on held-back data")
    group.add_argument(
        "--val_slices",
        metavar="START:STOP",
        help="slices at one end held back from training, such as -20: (with --val_..._paths: those "
        "taken of the volumes there)",
    )
    for domain in ("clinical", "micro"):
        group.add_argument(
            f"--val_{domain}_paths",
            nargs="+",
            metavar="PATH",
            help=f"{domain} volumes that are not trained on: files, folders or globs",
        )
    group.add_argument(
        "--val_freq", type=positive_int, default=1, help="epochs between two validations"
    )
    group.add_argument(
        "--val_metric",
        choices=("psnr", "ssim", "consistency"),
        default="psnr",
        help="score by which best.pt is kept",
    )
    group.add_argument(
        "--patience",
        type=positive_int,
        help="stop after so many validations without a better score",
    )
