"""The options of train.py, a table for each group of --help."""

from __future__ import annotations

from options.base_options import (
    FLAG,
    Rows,
    Shown,
    channels,
    fraction,
    layers,
    measure,
    non_negative_float,
    positive_float,
    positive_int,
    whole_number,
)
from options.presets import DATASETS, MODELS, PRESET_NOTES, PRESETS

BLOCK_CHOICES = ("6blocks", "9blocks")

# fmt: off
RUN: Rows = (
    ("preset", ("auto", *PRESETS), "auto",
     ", ".join(f"{name} ({what})" for name, what in PRESET_NOTES.items())),
    ("model", list(MODELS), "medical_cycle_gan",
     "medical_cycle_gan (8x) or medical_cycle_ganx4 (4x, with its loss weights; taken for "
     "--dataset_mode public_2D unless --model or --sampling_times says otherwise)"),
    ("suffix", str, "", "appended to the name; {option} is filled in, such as _ngf{ngf}"),
    ("engine", ("fused", "eager"), "fused",
     "fused: convolutions with what stands before them, faster and in half the memory; eager: "
     "torch's layers one by one, as published (also taken for --norm batch)"),
    ("compile", FLAG, False,
     "compile the networks by torch.compile (with --engine eager): slow at first, and a C++ "
     "compiler is needed"),
    ("deterministic", FLAG, False,
     "the same numbers from the same start on a GPU too, where that costs time; a CPU gives them "
     "always"),
    ("summary", FLAG, False,
     "print networks, parameters, arithmetic and memory of a step, and stop"),
    ("seed", whole_number, 0, "of every random number"),
    ("continue_train", FLAG, False,
     "go on from the checkpoint of --epoch or --load_iter in the experiment's folder"),
    ("overwrite", FLAG, False, "start anew although the experiment's folder already holds a model"),
    ("save_latest_freq", positive_int, 5000, "steps between two savings of the latest checkpoint"),
    ("save_every_minutes", positive_float, None,
     "also write latest.pt when the last one is so old, where steps take long"),
    ("save_epoch_freq", positive_int, 5, "epochs between two kept checkpoints"),
    ("save_by_iter", FLAG, False,
     "also keep each of the --save_latest_freq checkpoints under its step's number"),
    ("keep", whole_number, 5, "numbered checkpoints kept, the newest ones; 0 keeps all"),
)
DATA: Rows = (
    ("dataset_mode", list(DATASETS), "unpaired",
     "unpaired clinical CT and micro-CT; clinical CT alone, shrunk by itself; or paired: each "
     "micro volume shows the field of its clinical one, in the same order"),
    ("clinical_folder", str, None, "folder of clinical CT volumes"),
    ("micro_folder", str, None, "folder of micro-CT volumes"),
    ("all_clinical_paths", Shown("PATH", several=True), None,
     "clinical volumes: files, folders or globs, in place of or besides --clinical_folder"),
    ("all_micro_paths", Shown("PATH", several=True), None,
     "micro volumes: files, folders or globs, in place of or besides --micro_folder"),
    ("normalization", ("window", "minmax"), "window",
     "fixed windows kept with the weights, or each volume's own range as published"),
    ("clinical_patch_size", positive_int, None,
     "clinical patch edge in pixels (32; public_2D: 48)"),
    ("micro_patch_size", positive_int, None,
     "micro patch edge in pixels: clinical_patch_size * 2^sampling_times"),
    ("batch_num", positive_int, 2000, "patches drawn from each clinical volume in an epoch"),
    ("max_dataset_size", positive_int, None, "patches in an epoch at the most, over all volumes"),
    ("sampling", ("by_volume", "by_size"), "by_volume",
     "every volume as often as the others, or large ones more often by their patches"),
    ("match_spacing", FLAG, False,
     "resample micro-CT to the clinical voxel size / 2^sampling_times, so that 8x is 8x in "
     "millimetres"),
    ("micro_axes", ("z", "zy", "zx", "zyx"), None,
     "slice isotropic micro-CT across these axes (z; the built-in phantom: zyx)"),
    ("micro_mix", fraction, 0.25,
     "share of shrunk micro patches among the clinical inputs (published: a quarter)"),
    ("clinical_as_micro", fraction, 0.0,
     "share of micro patches that are clinical CT at its own pixel size, so that real vessels and "
     "fissures are among what is learned (not of the paper)"),
    ("no_flip", FLAG, False, "do not flip patches"),
    ("serial_batches", FLAG, False, "take patches in order and pair them by index, as published"),
    ("fixed_patches", FLAG, False,
     "the same patches in every epoch, as published, instead of fresh ones"),
    ("num_threads", whole_number, 4, "worker processes that load data"),
)
VALIDATION: Rows = (
    ("val_slices", Shown("START:STOP"), None,
     "slices at one end held back from training, such as -20: (with --val_..._paths: those taken "
     "of the volumes there)"),
    ("val_clinical_paths", Shown("PATH", several=True), None,
     "clinical volumes that are not trained on: files, folders or globs"),
    ("val_micro_paths", Shown("PATH", several=True), None,
     "micro volumes that are not trained on: files, folders or globs"),
    ("val_freq", positive_int, 1, "epochs between two validations"),
    ("val_metric", ("psnr", "ssim", "consistency"), "psnr", "score by which best.pt is kept"),
    ("patience", positive_int, None, "stop after so many validations without a better score"),
)
NETWORKS: Rows = (
    ("sampling_times", (1, 2, 3, 4), 3, "n of the scale 2^n: 3 enlarges 8 times"),
    ("clinical2micronetG", [f"sr_resnet_{blocks}" for blocks in BLOCK_CHOICES], "sr_resnet_9blocks",
     "SR generator G_A"),
    ("micro2clinicalnetG", [f"resnet_{blocks}" for blocks in BLOCK_CHOICES], "resnet_9blocks",
     "downsampling generator G_B"),
    ("ngf", channels, 64, "generator channels"),
    ("ndf", channels, 64, "discriminator channels"),
    ("netD", ("basic", "n_layers", "pixel"), "basic",
     "discriminators: basic (70x70 PatchGAN), n_layers (see --n_layers_D), pixel (1x1)"),
    ("n_layers_D", layers, 3, "layers with --netD n_layers"),
    ("norm", ("instance", "batch", "none"), "instance", "norm layers"),
    ("skip", ("none", "cubic"), "none",
     "cubic: G_A adds to the cubic enlargement of its input; none: published, tanh"),
    ("texture_noise", whole_number, 0,
     "channels of noise in layers of G_A's own that add texture at test time, such as 16 (not of "
     "the paper; needs --norm none and --lambda_texture); 0: none"),
    ("init_icnr", FLAG, False,
     "G_A starts without a checkerboard: equal weights for pixels shuffled side by side"),
    ("init_weights", Shown("FILE"), None,
     "G_A starts from the weights of this checkpoint, .safetensors file or state dict"),
    ("teacher", Shown("FILE"), None,
     "G_A learns what these weights make of pseudo-pairs, in place of their truth (--lambda_pair): "
     "for a smaller network, in less time"),
    ("from_scratch", FLAG, False,
     "presets demo, adapt and texture start from random weights, not from weights/: demo with a "
     "narrow network, adapt as best, texture as best with its layers"),
    ("init_type", ("normal", "xavier", "kaiming", "orthogonal"), "normal",
     "how new weights are drawn"),
    ("init_gain", positive_float, 0.02, "spread of new weights (normal, xavier, orthogonal)"),
)
SCHEDULE: Rows = (
    ("batch_size", positive_int, 4, "patches a step"),
    ("niter", positive_int, 100, "epochs at the full learning rate"),
    ("niter_decay", whole_number, 100, "epochs of decay after them"),
    ("epoch_count", positive_int, 1,
     "number of the first epoch, where training starts from weights alone"),
    ("lr", non_negative_float, 1e-5, "learning rate of Adam"),
    ("beta1", fraction, 0.5, "momentum of Adam"),
    ("lr_policy", ("linear", "step", "plateau", "cosine", "constant"), "linear",
     "decay of the learning rate; constant is what the published code does in effect"),
    ("lr_decay_iters", positive_int, 50, "epochs a step (policy step)"),
    ("clip_gradient", positive_float, None,
     "largest norm of the gradients of both generators, and of both discriminators"),
    ("ema", fraction, 0.0,
     "decay of a moving average of G_A's weights, such as 0.999, which tests then use"),
    ("pool_size", whole_number, 50, "generated images remembered for each discriminator"),
)
LOSSES: Rows = (
    ("gan_mode", ("lsgan", "vanilla", "wgangp"), "lsgan", "GAN loss"),
    ("lambda_G_A", non_negative_float, 1.0, "adversarial loss of G_A"),
    ("lambda_G_B", non_negative_float, 1.0, "adversarial loss of G_B"),
    ("lambda_A", non_negative_float, 1.0, "cycle clinical -> micro -> clinical"),
    ("lambda_B", non_negative_float, 1.0, "cycle micro -> clinical -> micro"),
    ("lambda_identity", non_negative_float, 0.2,
     "identity losses, relative to lambda_A and lambda_B"),
    ("lambda_downsample_loss", non_negative_float, 1.0,
     "L1 of the averaged SR image and its input (4x: 0.7)"),
    ("lambda_upsample_loss", non_negative_float, 1.0,
     "L1 of the repeated clinical image and its source (4x: 0.3)"),
    ("lambda_clinical_ssim", non_negative_float, 1.0,
     "1 - SSIM of the averaged SR image and its input"),
    ("lambda_micro_ssim", non_negative_float, 1.0,
     "1 - SSIM of the repeated clinical image and its source"),
    ("lambda_pair", non_negative_float, 0.0,
     "squared difference of a micro patch and G_A of what --scanner makes of it "
     "(not of the paper)"),
    ("lambda_stability", non_negative_float, 0.0,
     "L1 of what G_A makes of a pseudo-pair and of its mirrored, noised copy (not of the paper)"),
    ("lambda_lattice", non_negative_float, 0.0,
     "power of the grid that G_A leaves, so small that weights of 100 and more are usual "
     "(not of the paper)"),
    ("lambda_texture", non_negative_float, 0.0,
     "energy score of two draws of texture for a pseudo-pair: teaches the layers of "
     "--texture_noise alone (not of the paper)"),
    ("lambda_supervised", non_negative_float, 0.0,
     "squared difference of G_A's image and the truth (needs --dataset_mode paired)"),
    ("identity_crop", positive_int, None,
     "edge in pixels of a random square of the micro patch for idt_A; else the whole patch"),
    ("identity_every", positive_int, 1,
     "steps between two with the identity losses, which then weigh so much more"),
    ("ssim_data_range", measure, 2.0,
     "span of the values in the SSIM constants: 2 for [-1, 1], 1 as published"),
)
RANGE = Shown("LOWEST_AND_HIGHEST", measure, several=True)
SCANNER: Rows = (
    ("scanner", ("fixed", "random", "auto"), "fixed",
     "what shrinks micro-CT for --lambda_pair: fixed, one scanner of --pair_blur and --pair_noise; "
     "random, another one for each patch, which also sees the shrunk patches of --micro_mix and "
     "public_2D; or auto, random ones around the scanner of the clinical CT, found by comparing "
     "its lung with shrunk micro-CT"),
    ("pair_blur", measure, 0.0,
     "point spread of the fixed scanner: full width at half maximum in clinical pixels"),
    ("pair_noise", measure, 0.0,
     "noise of the fixed scanner: standard deviation on the scale of [-1, 1] (25 HU in a window of "
     "1500 HU are 0.033)"),
    ("scanner_blur", RANGE, [0.0, 3.2], "point spread of random scanners, as --pair_blur"),
    ("scanner_steepness", RANGE, [2.0, 2.0],
     "how steep the MTF of random scanners falls, 2^-((f / half)^steepness): 2 is a Gaussian"),
    ("scanner_sharpening", RANGE, [0.0, 1.0],
     "by how much half of the random kernels lift fine detail; 1 doubles it"),
    ("scanner_noise", RANGE, [0.0, 0.1],
     "noise of random scanners, as --pair_noise: 0.1 are 75 HU"),
    ("scanner_pixel", RANGE, [0.8, 1.8],
     "pixel size of random scanners: micro patches are read so many times as large, and resampled"),
    ("scanner_thickness", RANGE, [0.0, 1.25],
     "slices of random scanners: micro patches are the average of so much of a clinical slice's "
     "thickness, one micro slice at the least"),
    ("scanner_calibration", measure, 0.01,
     "largest error of the offset of random scanners on the scale of [-1, 1], and of their slope"),
)
DISPLAY: Rows = (
    ("print_freq", positive_int, 100, "steps between two loss reports"),
    ("display_freq", positive_int, 400, "steps between two pictures"),
    ("update_html_freq", positive_int, 1000, "steps between two rows of the HTML page"),
    ("no_html", FLAG, False, "no HTML page of pictures"),
    ("tensorboard", FLAG, False,
     "write TensorBoard files of curves and pictures (pip install tensorboard)"),
    ("display_id", whole_number, 0, "visdom window; 0: no visdom"),
    ("display_server", str, "http://localhost", "address of the visdom server"),
    ("display_port", positive_int, 8097, "its port"),
    ("display_env", str, "main", "visdom environment"),
    ("display_ncols", positive_int, 3, "visdom pictures in a row"),
)
# fmt: on

TRAIN_GROUPS = {
    "training run": RUN,
    "training data": DATA,
    "validation on held-back data": VALIDATION,
    "networks": NETWORKS,
    "schedule": SCHEDULE,
    "losses (docs/method.md has the formulas)": LOSSES,
    "scanner that shrinks micro-CT": SCANNER,
    "display (nothing here can end training)": DISPLAY,
}
