"""What train.py's options are checked for: contradictions, and flags without effect."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

# Options that act at a fresh start only; the checkpoint brings what they made.
START_OPTIONS = (
    "seed",
    "preset",
    "from_scratch",
    "normalization",
    "windows",
    "init_type",
    "init_icnr",
    "init_weights",
    "skip",
    "texture_noise",
    "init_gain",
    "epoch_count",
)

# --scanner_... options that take two numbers.
SCANNER_RANGES = ("blur", "steepness", "sharpening", "noise", "pixel", "thickness")
# What --scanner auto finds by itself, and what it draws as random scanners do.
FOUND_BY_AUTO = ("scanner_blur", "scanner_steepness", "scanner_noise", "scanner_pixel")
NOT_FOUND = ("thickness", "calibration")
PAIR_LOSSES = ("pair", "stability", "lattice", "texture")  # those that look at pseudo-pairs

# Option -> (option it depends on, what it needs there, one value or one of several): without that
# it would have no effect.
DEPENDENT_OPTIONS: dict[str, tuple[str, object]] = {
    "n_layers_D": ("netD", "n_layers"),
    "lr_decay_iters": ("lr_policy", "step"),
    "micro_mix": ("dataset_mode", "unpaired"),
    "clinical_as_micro": ("dataset_mode", "unpaired"),
    "match_spacing": ("dataset_mode", "unpaired"),
    "micro_axes": ("dataset_mode", "unpaired"),
    "windows": ("normalization", "window"),
    "pair_blur": ("scanner", "fixed"),
    "pair_noise": ("scanner", "fixed"),
    **{f"scanner_{name}": ("scanner", "random") for name in SCANNER_RANGES},
    **{f"scanner_{name}": ("scanner", ("random", "auto")) for name in NOT_FOUND},
    "epoch": ("continue_train", True),
    "load_iter": ("continue_train", True),
}

# Option -> the losses of which one must have a weight, or it would have no effect.
IDLE_WITHOUT_WEIGHT = {
    "identity_crop": ("identity",),
    "identity_every": ("identity",),
    "pair_blur": PAIR_LOSSES,
    "pair_noise": PAIR_LOSSES,
    "teacher": ("pair",),
}
SMALLEST_TEXTURED = 16  # pixels of a micro patch on which texture is compared

SMALLEST_CROP = 4  # in pixels; G_A mirrors three of them

# Options that only show something, and what shows it.
PANEL_OPTIONS = (
    "display_freq",
    "display_server",
    "display_port",
    "display_env",
    "display_ncols",
)


def has_weight(options: argparse.Namespace, losses: Sequence[str]) -> bool:
    """Whether one of these losses is taken."""
    return any(getattr(options, f"lambda_{loss}") > 0 for loss in losses)


def teaches_best(options: argparse.Namespace) -> bool:
    """Whether any loss but that of texture is taken, so that the best estimate changes."""
    weights = {name for name, value in vars(options).items() if name[:7] == "lambda_" and value}
    return bool(weights - {"lambda_texture", "lambda_identity"})


def refuse_restart(
    parser: argparse.ArgumentParser, options: argparse.Namespace, given: set[str]
) -> None:
    """Refuse options that contradict --continue_train."""
    if options.continue_train and options.overwrite:
        parser.error("--overwrite starts anew and --continue_train goes on: give one of them")
    if options.continue_train and "suffix" in given:
        parser.error(
            "--suffix makes a new name and --continue_train needs the one that is there: give "
            "the whole name by --name"
        )


def refuse_start_options(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    given: set[str],
    stored: dict[str, object],
) -> None:
    """Refuse other values than the stored ones where a resumed run cannot take them up."""
    for name in START_OPTIONS:
        now, was = getattr(options, name), stored.get(name)
        if name in given and now != was:
            parser.error(
                f"--{name} is {now}, but the run that goes on was started with {was}: leave "
                f"--{name} out, or start another experiment with --name"
            )


def refuse_idle_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, given: set[str]
) -> None:
    """Refuse options that were given but would have no effect, naming what they need."""
    for name, (other, value) in DEPENDENT_OPTIONS.items():
        values = value if isinstance(value, tuple) else (value,)
        if name in given and getattr(options, other) not in values:
            needed = f"--{other}" if value is True else f"--{other} {' or '.join(map(str, values))}"
            parser.error(f"--{name} has no effect without {needed}: add it or leave --{name} out")
    for name in PANEL_OPTIONS:
        shown = options.tensorboard and name == "display_freq"
        if name in given and options.display_id == 0 and not shown:
            parser.error(
                f"--{name} is about visdom panels, which --display_id 1 turns on: add it or leave "
                f"--{name} out"
            )
    if options.precision == "fp16":
        parser.error(
            "--precision fp16 is for testing: gradients would fall below its smallest numbers; "
            "train in bf16, or in tf32 or fp32"
        )
    if options.compile and options.engine != "eager" and options.norm != "batch":
        parser.error(
            "--compile is about torch's layers, which --engine eager runs: add it or leave "
            "--compile out"
        )
    if options.clinical_as_micro and options.serial_batches:
        parser.error(
            "--clinical_as_micro draws what a micro patch is taken from and --serial_batches takes "
            "them in turn: leave one of them out"
        )
    if options.sampling == "by_size" and options.serial_batches:
        parser.error(
            "--sampling by_size draws the volume and --serial_batches takes them in turn: leave "
            "one of them out"
        )
    validated = (options.val_slices, options.val_clinical_paths, options.val_micro_paths)
    for name in ("val_freq", "val_metric", "patience"):
        if name in given and not any(validated):
            parser.error(
                f"--{name} has no effect without held-back data: add --val_slices, such as -20:, "
                f"or --val_micro_paths, or leave --{name} out"
            )
    for name, losses in IDLE_WITHOUT_WEIGHT.items():
        if name in given and not has_weight(options, losses):
            weights = ", ".join(f"--lambda_{loss} 0" for loss in losses)
            parser.error(f"--{name} has no effect with {weights}: leave it out, or raise one")
    if any(validated) and has_weight(options, ("texture",)) and not teaches_best(options):
        parser.error(
            "held-back slices score the best estimate, which --lambda_texture alone leaves as it "
            "is: leave --val_... out"
        )
    refuse_idle_scanner(parser, options, given)


def refuse_idle_scanner(
    parser: argparse.ArgumentParser, options: argparse.Namespace, given: set[str]
) -> None:
    """Refuse what was said of random scanners where nothing is seen by them."""
    for name in ("scanner_pixel", "scanner_thickness"):
        if name in given and options.dataset_mode == "paired":
            parser.error(
                f"--{name} has no effect with --dataset_mode paired, whose truths are read as "
                "they are: leave it out"
            )
    if "scanner_thickness" in given and options.dataset_mode == "public_2D":
        parser.error(
            "--scanner_thickness has no effect with --dataset_mode public_2D, whose slices are as "
            "thick as they are: leave it out"
        )
    pairs = has_weight(options, PAIR_LOSSES)
    shrunk = options.dataset_mode == "unpaired" and options.micro_mix > 0
    if pairs or shrunk or options.dataset_mode == "public_2D" or options.scanner == "fixed":
        return
    for name in ("scanner", *(f"scanner_{part}" for part in (*SCANNER_RANGES, "calibration"))):
        if name in given:
            parser.error(
                f"--{name} has no effect without shrunk micro-CT: add --lambda_pair, "
                f"--lambda_texture or --micro_mix, or leave --{name} out"
            )


def refuse_other_pairs(
    parser: argparse.ArgumentParser, stored: dict[str, object], given: set[str]
) -> None:
    """Refuse to go on silently where pairs were judged by the absolute difference.

    An older run does not say so; the options that came with the squared one tell it.
    """
    supervised = stored.get("lambda_supervised")
    if supervised and "scanner_steepness" not in stored and "lambda_supervised" not in given:
        parser.error(
            "this run's registered pairs were judged by the absolute difference "
            f"(--lambda_supervised {supervised}), now they are by the squared one, about a fifth "
            "of it: give --lambda_supervised, five times as much for about the same weight"
        )
    weight = stored.get("lambda_pair")
    if weight and "lambda_lattice" not in stored and "lambda_pair" not in given:
        parser.error(
            f"this run's pseudo-pairs were judged by the absolute difference (--lambda_pair "
            f"{weight}), now they are by the squared one, which is about a fifth of it: give "
            "--lambda_pair, five times as much for about the same weight"
        )


def check_losses(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse weights that teach nothing, or that the data has no truth for."""
    weights = {name: value for name, value in vars(options).items() if name.startswith("lambda_")}
    if not any(value for name, value in weights.items() if name != "lambda_identity"):
        parser.error(
            "every --lambda_... is 0 (--lambda_identity is a share of --lambda_A and --lambda_B), "
            "so that nothing would be learned: raise one"
        )
    if (options.lambda_texture > 0) != (options.texture_noise > 0):
        parser.error(
            f"--lambda_texture {options.lambda_texture:g} teaches the layers that --texture_noise "
            f"{options.texture_noise} adds: give both, such as 1 and 16, or neither"
        )
    if options.texture_noise and options.norm != "none":
        parser.error(
            f"--texture_noise is {options.texture_noise} with --norm {options.norm}, expected "
            "--norm none, whose features noise moves pixel by pixel"
        )
    if options.lambda_supervised > 0 and options.dataset_mode != "paired":
        parser.error(
            f"--lambda_supervised {options.lambda_supervised:g} compares with the truth, got "
            f"--dataset_mode {options.dataset_mode}: take --dataset_mode paired, or leave it out"
        )


def check_scanner(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse ranges that are none, and pixels without a size."""
    for name in SCANNER_RANGES:
        ends = getattr(options, f"scanner_{name}")
        if len(ends) != 2 or ends[0] > ends[1]:
            text = " ".join(f"{end:g}" for end in ends)
            parser.error(
                f"--scanner_{name} is {text}, expected the lowest and the highest value, such as "
                f"--scanner_{name} {'0.8 1.8' if name == 'pixel' else '0 1'}"
            )
    for name, such_as in (("pixel", "0.8"), ("steepness", "2")):
        if getattr(options, f"scanner_{name}")[0] == 0:
            parser.error(f"--scanner_{name} begins at 0, expected more, such as {such_as}")
    if options.scanner == "auto" and options.dataset_mode != "unpaired":
        parser.error(
            "--scanner auto compares clinical CT with micro-CT of other places, got --dataset_mode "
            f"{options.dataset_mode}: take --scanner random"
        )
    if options.scanner == "auto" and options.normalization == "minmax":
        parser.error(
            "--scanner auto finds noise in HU, which --normalization minmax does not keep: take "
            "--normalization window, or --scanner random"
        )


def check_patches(parser: argparse.ArgumentParser, options: argparse.Namespace, scale: int) -> None:
    """Fill in the patch sizes and refuse those that the networks cannot take."""
    if options.clinical_patch_size is None:
        if options.micro_patch_size is not None:
            options.clinical_patch_size = max(1, options.micro_patch_size // scale)
        else:
            options.clinical_patch_size = 48 if options.dataset_mode == "public_2D" else 32
            # G_B on a clinical patch needs four pixels after shrinking, which 16x moves up.
            options.clinical_patch_size = max(options.clinical_patch_size, 4 * scale)
    patch = options.clinical_patch_size
    if options.micro_patch_size is None:
        options.micro_patch_size = patch * scale
    if options.lambda_texture > 0 and options.micro_patch_size < SMALLEST_TEXTURED:
        parser.error(
            f"--micro_patch_size is {options.micro_patch_size}, expected at least "
            f"{SMALLEST_TEXTURED} pixels for --lambda_texture to compare texture on"
        )
    if options.micro_patch_size != patch * scale:
        parser.error(
            f"--micro_patch_size is {options.micro_patch_size}, expected clinical_patch_size * "
            f"2^sampling_times = {patch} * {scale} = {patch * scale}"
        )
    smallest = smallest_patch(options, scale)
    multiple = max(4, scale)
    if patch < smallest or patch % multiple:
        fix = -(-max(smallest, patch) // multiple) * multiple
        parser.error(
            f"--clinical_patch_size is {patch}, expected a multiple of {multiple} of at least "
            f"{smallest} for the generators' padding and the discriminators at {scale}x: take {fix}"
        )


def check_identity(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse a crop that is larger than its patch or smaller than G_A's padding allows."""
    crop = options.identity_crop
    if crop is not None and not SMALLEST_CROP <= crop <= options.micro_patch_size:
        parser.error(
            f"--identity_crop is {crop}, expected {SMALLEST_CROP} to the micro patch's edge "
            f"{options.micro_patch_size}"
        )


def training_slices(val_slices: str) -> str | None:
    """What is left when slices at one end are held back: "-20:" leaves ":-20"; None in between."""
    start, _, stop = (word.strip() for word in val_slices.partition(":"))
    if start and not stop:
        return f":{start}"
    if stop and not start:
        return f"{stop}:"
    return None


def check_validation(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Let training use the slices that validation leaves, where both share the volumes."""
    if options.val_slices is None or options.val_clinical_paths or options.val_micro_paths:
        return
    left = training_slices(options.val_slices)
    if left is None:
        parser.error(
            f"--val_slices is {options.val_slices!r}, expected slices at one end, such as -20: or "
            ":20, so that training keeps the others in one piece"
        )
    if options.slices not in (None, left):
        parser.error(
            f"--val_slices {options.val_slices} leaves {left} for training, got --slices "
            f"{options.slices}: leave --slices out, or give --val_micro_paths and "
            "--val_clinical_paths as well"
        )
    options.slices = left


def smallest_patch(options: argparse.Namespace, scale: int) -> int:
    """Smallest clinical patch edge, in pixels, that every network of a step can take.

    G_B pads its last layer by 3 pixels, so 4 must be left: of the patch itself when it shrinks a
    micro patch, and of patch / scale when the identity loss shrinks a clinical patch. A
    discriminator halves `layers` times and then loses one pixel twice; its last norm needs 2x2.
    """
    layers = options.n_layers_D if options.netD == "n_layers" else 3
    discriminator = 1 if options.netD == "pixel" else 3 * 2**layers
    generator = 4 * scale if options.lambda_identity > 0 else 4
    return max(discriminator, generator)
