"""Options of medicaltest.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from options.base_options import (
    FLAG,
    BaseOptions,
    Rows,
    Shown,
    fraction,
    given_names,
    join_slices,
    positive_float,
    positive_int,
    refuse_empty,
    whole_number,
)
from options.presets import METHODS

OUTPUT_FORMATS = ("nifti", "nrrd", "mha", "dicom")
BACKENDS = ("auto", "torch", "openvino")


PUBLISHED_TILE = 32  # the clinical patch of training
MOST_PATIENTS = 100  # of a set of phantomtest: first seeds lie so far apart
COMPANIONS = ("clinical", "uncertainty")  # files that stand beside the result

# fmt: off
TEST: Rows = (
    ("method", list(METHODS), "smallpatchtest", "what to do"),
    ("input", Shown("PATH", several=True), None,
     "volumes: NIfTI, NRRD, MHA, TIFF, Zarr, folders of DICOM, TIFF or picture slices; files, "
     "folders or globs"),
    ("checkpoint", Shown("FILE"), None,
     "a checkpoint of this project, or a bare state dict such as latest_net_G_A.pth"),
    ("checkpoints", Shown("FILE", several=True), None,
     "phantomtest, pairtest: several models in one table, each as FILE or LABEL=FILE"),
    ("patients", positive_int, 10,
     "phantomtest: how many of the fixed unseen patients (made on first use)"),
    ("patient_set", ("test", "validation"), "test",
     "phantomtest: those on which is reported, once, or those by which weights are chosen"),
    ("scanners", FLAG, False,
     "phantomtest: also score on other scanners: point spread, noise, its spectrum, pixel size"),
    ("truth", Shown("PATH", several=True), None,
     "pairtest: the truth of each --input, the same field 2^n times as fine in plane, in the same "
     "order"),
    ("compare", Shown("FOLDER", several=True), None,
     "put results of one case side by side in compare.html and do nothing else; each is a "
     "results folder, or LABEL=FOLDER"),
    ("results_dir", str, "results", "folder for what is written"),
    ("page_mb", whole_number, 40,
     "megabytes that the volumes in a case's page (index.html) may take: larger ones are shown "
     "as an overview and a detail; 0 writes no page"),
    ("overwrite", FLAG, False, "replace results that are already there"),
    ("sampling_times", (1, 2, 3, 4), None,
     "n of the scale 2^n; only checked against the checkpoint, which knows it"),
    ("normalization", ("window", "minmax", "public"), None,
     "overrides the checkpoint's: fixed windows, each volume's own range, or the clinical window "
     "mapped to [0, 1], as weights of the original's public setting expect"),
    ("region", ("lung", "all"), None,
     "lung (default for clinical CT): smallpatchtest puts cubic interpolation outside the lung "
     "mask, where the networks were not trained; wholevolumetest scores the lung"),
    ("norm_scope", ("slice", "volume", "lung", "patch"), None,
     "pixels that instance norm takes its statistics from: the whole slice, its lung, those of "
     "all slices of the volume (one pass to gather them, one to apply), or each published tile; "
     "default: lung for models trained on patches inside the lung, else slice"),
    ("patch_size", positive_int, None,
     "tile edge in low-resolution pixels for --norm_scope patch, which it implies "
            f"(the published tiles with their seams; {PUBLISHED_TILE} without this flag)"),
    ("allow_training_data", FLAG, False, "evaluate on slices that the model was trained on"),
    ("export", Shown("FILE.onnx"), None,
     "write G_A as ONNX, any height and width, and do nothing else"),
)
# docs/inference.md has each measured.
SPEED: Rows = (
    ("backend", BACKENDS, "auto",
     "auto: OpenVINO for the trunk of G_A on a CPU, torch for the rest and on a GPU"),
    ("max_memory", Shown("GB", positive_float), None,
     "memory that one slice may take in the network; a slice that needs more is computed in "
     "parts with the same result; default: 60 %% of what is free on the machine or GPU"),
    ("compile", FLAG, False,
     "compile norms and activations with torch.compile: a minute at the start, for GPUs and long "
     "runs (a CPU needs a C++ compiler)"),
)
# What keeps the result true to its input, and says how sure it is.
HONESTY: Rows = (
    ("consistency", FLAG, False,
     "correct the result smoothly so that its area average equals the input within 1 HU"),
    ("self_ensemble", FLAG, False,
     "average the results for the eight flips and rotations of the input (8 times slower)"),
    ("uncertainty", FLAG, False,
     "also write how sure the result is, a standard deviation in HU, as uncertainty.nii.gz: of 8 "
     "draws of texture where the model has it, times the factor that the weights state (2 to 4 "
     "times slower), else over the eight flips and rotations (8 times slower)"),
    ("texture", fraction, 0.0,
     "from 0, the best estimate, to 1, its most lifelike look: how much of the detail is added "
     "that the model draws by chance (models of --preset texture)"),
    ("samples", whole_number, 0,
     "write the mean of so many draws of texture as the result, and their standard deviation, "
     "times the factor that the weights state, as --uncertainty does"),
)
# Many volumes, several processes, interrupted runs.
COHORTS: Rows = (
    ("output_name", str, "SR.nii.gz",
     "file name of the result; .nii is written uncompressed, and so are its companions"),
    ("output_format", OUTPUT_FORMATS, "nifti",
     "also write the result as NRRD, MetaImage or a derived DICOM series, beside the NIfTI file "
     "that every run writes"),
    ("resume", FLAG, False,
     "go on from the last whole slice of an interrupted run and skip finished cases"),
    ("num_parts", positive_int, 1,
     "number of jobs that share the input volumes, as in a job array"),
    ("part_id", whole_number, 0,
     "which of them this is, from 0; torchrun's processes share a part by themselves"),
)
# fmt: on

ON_INPUTS = ("smallpatchtest", "stabilitytest", "microCTsmallpatchtest", "wholevolumetest")
# Option -> methods on which it acts; elsewhere it would have no effect.
METHOD_OPTIONS: dict[str, tuple[str, ...]] = {
    "region": ("smallpatchtest", "stabilitytest", "wholevolumetest", "pairtest"),
    "maskdatafolder": ("smallpatchtest", "stabilitytest", "wholevolumetest", "pairtest"),
    "degradation": ("microCTsmallpatchtest", "wholevolumetest"),
    "allow_training_data": ("microCTsmallpatchtest", "wholevolumetest"),
    "uncertainty": ("smallpatchtest",),
    "texture": (
        "smallpatchtest",
        "microCTsmallpatchtest",
        "wholevolumetest",
        "phantomtest",
        "pairtest",
    ),
    "samples": ("smallpatchtest",),
    "resume": ("smallpatchtest",),
    "output_name": ("smallpatchtest",),
    "output_format": ("smallpatchtest",),
    # The benchmarks sum up over all patients, in one job.
    "slices": (*ON_INPUTS, "pairtest"),
    "micro_spacing": (*ON_INPUTS, "pairtest"),
    "num_parts": ON_INPUTS,
    "part_id": ON_INPUTS,
    "checkpoints": ("phantomtest", "pairtest"),
    "patients": ("phantomtest",),
    "patient_set": ("phantomtest",),
    "scanners": ("phantomtest",),
    "truth": ("pairtest",),
}

COMPARE_OPTIONS = {"compare", "results_dir", "overwrite", "page_mb", "debug"}
# All that --export looks at.
EXPORT_OPTIONS = {
    "export", "checkpoint", "name", "epoch", "load_iter", "checkpoints_dir", "overwrite", "windows",
    "normalization", "sampling_times", "gpu_ids", "debug", "method",
}  # fmt: skip


class TestOptions(BaseOptions):
    """Every option of medicaltest.py with type, default, unit and reason.

    Architecture and intensity windows are not among them: they travel with the weights.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name
    program = "medicaltest.py"
    description = (
        "Super-resolve clinical CT (smallpatchtest), tell how stable that is over a scan "
        "(stabilitytest), or measure a model on micro-CT (microCTsmallpatchtest) or clinical CT "
        "(wholevolumetest) that is shrunk and restored, or against the truth of phantom patients "
        "(phantomtest) or of registered pairs (pairtest). "
        "Without --input the phantom's held-back volume is taken, without --checkpoint or --name "
        "the model that was trained last."
    )

    groups = {"test": TEST, "speed and memory": SPEED, "honesty": HONESTY, "cohorts": COHORTS}

    def parse(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
        """Parse a command line; exits with code 2 on wrong values, naming the fix."""
        arguments = join_slices(arguments)
        parser = self.build()
        options = parser.parse_args(arguments)
        given = given_names(parser, arguments)
        refuse_empty(parser, options, given)
        refuse_idle_options(parser, options, given)
        self.check(parser, options)
        options.region = options.region or "lung"
        options.uncertainty = options.uncertainty or options.samples > 0  # --samples tells it too
        if options.patch_size:
            options.norm_scope = "patch"
        elif options.norm_scope == "patch":
            options.patch_size = PUBLISHED_TILE
        return options, parser

    def check(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        """Refuse flags that contradict each other or would have no effect on the method."""
        super().check(parser, options)
        if options.checkpoints and (options.checkpoint or options.name):
            parser.error("--checkpoints names the models: leave --checkpoint and --name out")
        if options.checkpoint and options.name:
            parser.error("--checkpoint and --name both choose the model: give one of them")
        if options.checkpoint and (options.epoch != "latest" or options.load_iter):
            parser.error("--epoch and --load_iter choose within --name: leave out --checkpoint")
        if options.patch_size is not None and options.patch_size < 4:
            parser.error(
                f"--patch_size is {options.patch_size}, expected at least 4 for the generator's "
                "padding of 3"
            )
        if options.patients > MOST_PATIENTS:
            parser.error(
                f"--patients is {options.patients}, expected at most {MOST_PATIENTS}: beyond them "
                "are the patients of another set"
            )
        if options.part_id >= options.num_parts:
            parser.error(
                f"--part_id is {options.part_id}, expected 0 to {options.num_parts - 1} with "
                f"--num_parts {options.num_parts}"
            )
        if not options.output_name.endswith((".nii", ".nii.gz")):
            parser.error(
                f"--output_name is {options.output_name!r}, expected a name that ends in .nii or "
                ".nii.gz"
            )
        if options.output_name.startswith(".") or len(os.fsencode(options.output_name)) > 200:
            parser.error(
                f"--output_name is {options.output_name[:50]!r}, expected a name of at most 200 "
                "letters that is not hidden"
            )
        if "/" in options.output_name or "\\" in options.output_name:
            parser.error(
                f"--output_name is {options.output_name!r}, expected a file name: folders go to "
                "--results_dir"
            )
        stem = options.output_name.lower().removesuffix(".gz").removesuffix(".nii")
        if stem in COMPANIONS:
            parser.error(
                f"--output_name is {options.output_name!r}, which is a companion's name: expected "
                f"another than {' or '.join(COMPANIONS)}"
            )
        if options.texture and options.samples:
            parser.error("--samples takes full texture by itself: leave --texture out")
        if options.samples == 1:
            parser.error("--samples is 1, expected at least 2, whose spread can be told, or 0")
        if options.texture and options.uncertainty:
            parser.error(
                "--uncertainty says how far the truth lies from the best estimate, not from a draw "
                "of texture: leave --texture out"
            )
        if options.texture and options.self_ensemble:
            parser.error("--self_ensemble would average --texture away: leave one of them out")
        if options.samples and options.self_ensemble:
            parser.error("--samples and --self_ensemble both take a mean: leave one of them out")
        tiles = options.patch_size or options.norm_scope == "patch"
        if (options.texture or options.samples) and tiles:
            parser.error(
                "--patch_size and --norm_scope patch cut tiles, which have no texture: leave it out"
            )
        if options.export and not options.export.lower().endswith(".onnx"):
            parser.error(f"--export is {options.export!r}, expected a name that ends in .onnx")


def refuse_idle_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, given: set[str]
) -> None:
    """Refuse options that were given but would have no effect on the chosen method."""
    if options.compare:
        idle = given - COMPARE_OPTIONS
        if idle:
            parser.error(f"--{min(idle)} has no effect with --compare: leave it out")
        if not options.page_mb:
            parser.error("--page_mb is 0, but --compare makes a page: give some megabytes")
    if options.dry_run and options.export:
        parser.error("--dry_run has no effect with --export: leave it out")
    for name, methods in METHOD_OPTIONS.items():
        if name in given and options.method not in methods:
            parser.error(f"--{name} has no effect with --method {options.method}: leave it out")
    if options.input and "patients" in given:
        parser.error("--patients has no effect with --input: leave one of them out")
    if options.input and "patient_set" in given and not options.scanners:
        parser.error("--patient_set has no effect with --input: leave one of them out")
    if options.method == "pairtest" and not (options.input and options.truth):
        parser.error(
            "--method pairtest compares with truths of your own: give --input and --truth, volume "
            "by volume"
        )
    if options.export:
        idle = given - EXPORT_OPTIONS
        if idle:
            parser.error(f"--{min(idle)} has no effect with --export: leave it out")
    if options.region == "all" and "maskdatafolder" in given:
        parser.error("--maskdatafolder has no effect with --region all: leave one of them out")
    if options.windows and options.normalization == "minmax":
        parser.error("--windows has no effect with --normalization minmax: leave one of them out")
    if options.norm_scope == "lung" and options.method == "microCTsmallpatchtest":
        parser.error(
            f"--norm_scope lung has no effect with --method {options.method}: leave it out"
        )
    if options.norm_scope == "lung" and options.region == "all":
        parser.error("--norm_scope lung needs the lung mask, which --region all leaves out")
    if options.norm_scope not in (None, "patch") and options.patch_size:
        parser.error(
            f"--norm_scope {options.norm_scope} has no effect with --patch_size: a tile has its "
            "own statistics"
        )
