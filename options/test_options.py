"""Options of medicaltest.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from options.base_options import BaseOptions, given_names, join_slices, positive_int

METHODS = ("smallpatchtest", "microCTsmallpatchtest", "wholevolumetest")


class TestOptions(BaseOptions):
    """Every option of medicaltest.py with type, default, unit and reason.

    Architecture and intensity windows are not among them: they travel with the weights.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name
    program = "medicaltest.py"
    description = (
        "Super-resolve clinical CT (smallpatchtest), or measure a model on micro-CT "
        "(microCTsmallpatchtest) or clinical CT (wholevolumetest) that is shrunk and restored. "
        "Without --input the phantom's held-back volume is taken, without --checkpoint or --name "
        "the model that was trained last."
    )

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add the testing options."""
        group = parser.add_argument_group("test")
        group.add_argument("--method", choices=METHODS, default="smallpatchtest", help="what to do")
        group.add_argument(
            "--input",
            nargs="+",
            metavar="PATH",
            help="volumes: NIfTI, NRRD, MHA, TIFF, DICOM or TIFF folders; files, folders or globs",
        )
        group.add_argument(
            "--checkpoint",
            metavar="FILE",
            help="a checkpoint of this project, or a bare state dict such as latest_net_G_A.pth",
        )
        group.add_argument("--results_dir", default="results", help="folder for what is written")
        group.add_argument(
            "--overwrite", action="store_true", help="replace results that are already there"
        )
        group.add_argument(
            "--sampling_times",
            type=int,
            choices=(1, 2, 3, 4),
            help="n of the scale 2^n; only checked against the checkpoint, which knows it",
        )
        group.add_argument(
            "--normalization",
            choices=("window", "minmax"),
            help="overrides the checkpoint's: fixed windows or each volume's own range",
        )
        group.add_argument(
            "--region",
            choices=("lung", "all"),
            help="lung (default for clinical CT): smallpatchtest puts cubic interpolation outside "
            "the lung mask, where the networks were not trained; wholevolumetest scores the lung",
        )
        group.add_argument(
            "--norm_scope",
            choices=("slice", "lung"),
            help="pixels that instance norm takes its statistics from: the whole slice, or its "
            "lung; default: lung for models trained on patches inside the lung, else slice",
        )
        group.add_argument(
            "--patch_size",
            type=positive_int,
            help="tile edge in low-resolution pixels, as published (each tile with its own "
            "instance-norm statistics); default: the whole slice at once",
        )
        group.add_argument(
            "--allow_training_data",
            action="store_true",
            help="evaluate on slices that the model was trained on",
        )

    def parse(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
        """Parse a command line; exits with code 2 on wrong values, naming the fix."""
        arguments = join_slices(arguments)
        parser = self.build()
        options = parser.parse_args(arguments)
        refuse_idle_options(parser, options, given_names(parser, arguments))
        self.check(parser, options)
        options.region = options.region or "lung"
        return options, parser

    def check(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        """Refuse flags that contradict each other or would have no effect on the method."""
        super().check(parser, options)
        if options.checkpoint and options.name:
            parser.error("--checkpoint and --name both choose the model: give one of them")
        if options.checkpoint and (options.epoch != "latest" or options.load_iter):
            parser.error("--epoch and --load_iter choose within --name: leave out --checkpoint")
        if options.patch_size is not None and options.patch_size < 4:
            parser.error(
                f"--patch_size is {options.patch_size}, expected at least 4 for the generator's "
                "padding of 3"
            )


# Option -> methods on which it acts; elsewhere it would have no effect.
METHOD_OPTIONS: dict[str, tuple[str, ...]] = {
    "region": ("smallpatchtest", "wholevolumetest"),
    "norm_scope": ("smallpatchtest", "wholevolumetest"),
    "maskdatafolder": ("smallpatchtest", "wholevolumetest"),
    "degradation": ("microCTsmallpatchtest", "wholevolumetest"),
    "allow_training_data": ("microCTsmallpatchtest", "wholevolumetest"),
}


def refuse_idle_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, given: set[str]
) -> None:
    """Refuse options that were given but would have no effect on the chosen method."""
    for name, methods in METHOD_OPTIONS.items():
        if name in given and options.method not in methods:
            parser.error(f"--{name} has no effect with --method {options.method}: leave it out")
    if options.region == "all" and "maskdatafolder" in given:
        parser.error("--maskdatafolder has no effect with --region all: leave one of them out")
    if options.windows and options.normalization == "minmax":
        parser.error("--windows has no effect with --normalization minmax: leave one of them out")
    if options.norm_scope == "lung" and options.region == "all":
        parser.error("--norm_scope lung needs the lung mask, which --region all leaves out")
    if options.norm_scope and options.patch_size:
        parser.error("--norm_scope has no effect with --patch_size: a tile has its own statistics")
