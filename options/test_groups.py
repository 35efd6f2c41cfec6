"""Options of medicaltest.py by purpose: speed and memory, honesty, cohorts."""

from __future__ import annotations

import argparse

from options.base_options import positive_float, positive_int, whole_number

OUTPUT_FORMATS = ("nifti", "nrrd", "mha", "dicom")
BACKENDS = ("auto", "torch", "openvino")


def add_speed_options(parser: argparse.ArgumentParser) -> None:
    """Where and how fast the network runs; docs/inference.md has each measured."""
    group = parser.add_argument_group("speed and memory")
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="auto: OpenVINO for the trunk of G_A on a CPU, torch for the rest and on a GPU",
    )
    group.add_argument(
        "--max_memory",
        type=positive_float,
        metavar="GB",
        help="memory that one slice may take in the network; a slice that needs more is computed "
        "in parts with the same result; default: 60 %% of what is free on the machine or GPU",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile norms and activations with torch.compile: a minute at the start, for GPUs "
        "and long runs (a CPU needs a C++ compiler)",
    )


def add_honesty_options(parser: argparse.ArgumentParser) -> None:
    """What keeps the result true to its input, and says how sure it is."""
    group = parser.add_argument_group("honesty")
    group.add_argument(
        "--consistency",
        action="store_true",
        help="correct the result smoothly so that its area average equals the input within 1 HU",
    )
    group.add_argument(
        "--self_ensemble",
        action="store_true",
        help="average the results for the eight flips and rotations of the input (8 times slower)",
    )
    group.add_argument(
        "--uncertainty",
        action="store_true",
        help="also write the standard deviation over the eight flips and rotations, in HU, as "
        "uncertainty.nii.gz (8 times slower)",
    )


def add_cohort_options(parser: argparse.ArgumentParser) -> None:
    """Many volumes, several processes, interrupted runs."""
    group = parser.add_argument_group("cohorts")
    group.add_argument(
        "--output_name",
        default="SR.nii.gz",
        help="file name of the result; .nii is written uncompressed, and so are its companions",
    )
    group.add_argument(
        "--output_format",
        choices=OUTPUT_FORMATS,
        default="nifti",
        help="also write the result as NRRD, MetaImage or a derived DICOM series, beside the NIfTI "
        "file that every run writes",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last whole slice of an interrupted run and skip finished cases",
    )
    group.add_argument(
        "--num_parts",
        type=positive_int,
        default=1,
        help="number of jobs that share the input volumes, as in a job array",
    )
    group.add_argument(
        "--part_id",
        type=whole_number,
        default=0,
        help="which of them this is, from 0; torchrun's processes share a part by themselves",
    )
