"""--dry_run and --summary of train.py: what a run would be made of, and what a step of it takes.

Networks, parameters, arithmetic and memory come from shapes alone; with --dry_run also the data,
the schedule, and steps that are measured but not kept.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from data.opening import spacing_for
from models.graphed_step import WARM_UP
from models.losses import GANLoss
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from models.networks import count_parameters
from options.base_options import PHANTOM_FOLDER
from training.setup import data_words, load_teacher
from util.devices import check_precision, choose_devices, set_up_cudnn
from util.errors import some_of
from util.progress import format_bytes, format_seconds

BYTES_A_WEIGHT = 4 * 4  # float32: the weight, its gradient and Adam's two moments
PROGRAM_BYTES = 0.35e9  # Python and its libraries in one process
# Peak over kept maps: gradients of maps and work space (docs/training.md compares with runs).
WORK_SHARE = 1.7

MEASURED_STEPS = 2
PHANTOM_PATIENTS = 2  # that it trains on, see data/phantom/training_set.py
DOMAIN_WORDS = {"clinical": "clinical CT", "micro": "micro-CT"}


def summary(options: Namespace) -> str:
    """Lines for the user's eyes; computes with shapes alone, so it takes no memory and no time.

    Args:
        options: of the run.
    """
    model = MODELS[options.model](options, torch.device("meta"))
    lines = [f"{options.model}, {model.scale}x, batch {options.batch_size}, {options.precision}"]
    for name, network in model.networks.items():
        lines.append(
            f"{name}  {type(network).__name__:<22} {count_parameters(network):>12,} parameters"
        )
    parameters = sum(count_parameters(network) for network in model.networks.values())
    forward, backward, kept = measure_step(model)
    weights = parameters * BYTES_A_WEIGHT
    pools = options.pool_size * 4 * (options.micro_patch_size**2 + options.clinical_patch_size**2)
    peak = PROGRAM_BYTES + weights + pools + WORK_SHARE * kept
    lines += [
        f"arithmetic of a step  {(forward + backward) / 1e9:,.0f} GFLOP in convolutions: "
        f"{forward / 1e9:,.0f} forward, {backward / 1e9:,.0f} backward and for the discriminators",
        f"memory of a step      about {peak / 1e9:.1f} GB: {kept / 1e9:.2f} GB of maps kept for "
        f"the backward pass, {weights / 1e9:.2f} GB of weights, gradients and moments, "
        f"{pools / 1e9:.2f} GB of image pools, and work space",
    ]
    if options.precision == "bf16" and options.engine == "eager":
        lines.append("(the maps are counted in fp32; autocast keeps some of them in bf16)")
    if options.gan_mode == "wgangp":
        lines.append("(without the gradient penalty of wgangp)")
    return "\n".join(lines)


def measure_step(model: MedicalCycleGANModel) -> tuple[int, int, int]:
    """Arithmetic and memory of one step of a model whose weights lie on torch's meta device.

    Returns:
        Floating-point operations of the generators' forward passes and losses; those of all
        backward passes and of the discriminators' own losses; bytes kept for the backward pass of
        the generators, which is the larger one.
    """
    options, meta = model.options, torch.device("meta")
    shape = (options.batch_size, 1)
    clinical, micro = options.clinical_patch_size, options.micro_patch_size
    model.real_A = torch.zeros(*shape, clinical, clinical, device=meta)
    model.real_B = torch.zeros(*shape, micro, micro, device=meta)
    model.device = torch.device("cpu")  # autocast knows no meta device
    if model.gan_loss.mode == "wgangp":  # its penalty's second derivatives cannot be counted here
        model.gan_loss = GANLoss("lsgan")
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other takes its place
        return tensor

    first, second = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with first:
            model.forward()
            model._freeze_discriminators(True)
            loss = model.generator_loss()
        kept_bytes = sum(storage.nbytes() for storage in kept.values())
    with second:
        loss.backward()
        model._freeze_discriminators(False)
        if options.lambda_G_A > 0:
            model.discriminator_loss("D_A", model.real_B, model.fake_B.detach()).backward()
        if options.lambda_G_B > 0:
            model.discriminator_loss("D_B", model.real_A, model.fake_A.detach()).backward()
    return first.get_total_flops(), second.get_total_flops(), kept_bytes


def dry_run(options: Namespace) -> int:
    """Tell what the run would do; writes nothing but the cache of unpacked volumes.

    Every volume is opened, so that one that would be refused is refused now. Patches of noise stand
    in for the data in the guess of time, which leaves lung masks out.

    Returns:
        Exit code 0.

    Raises:
        UserError: a volume cannot be read.
    """
    print("dry run: nothing is written but the cache of unpacked volumes")
    print(f"experiment  {experiment_state(Path(options.checkpoints_dir) / options.name, options)}")
    counts = {"clinical": PHANTOM_PATIENTS}
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    for domain, words in data_words(options).items():
        if words:
            volumes = [
                read_volume(path, cache_dir, spacing_for(path, domain, options.micro_spacing))
                for path in find_volumes(words, cache_dir)
            ]
            counts[domain] = len(volumes)
            on_disk = format_bytes(sum(total_size(Path(volume.source)) for volume in volumes))
            sizes = [
                f"{volume.printed_name} {'x'.join(map(str, volume.size))}" for volume in volumes
            ]
            print(f"{DOMAIN_WORDS[domain]}  {len(volumes)} volumes, {on_disk}: {some_of(sizes)}")
    if not any(data_words(options).values()):
        folder = Path(PHANTOM_FOLDER) / f"x{2**options.sampling_times}"
        state = "is there" if folder.is_dir() else "would be made"
        print(f"data  the digital lung phantom in {folder} ({state})")
    print(summary(options))
    epochs = options.niter + options.niter_decay
    seconds = seconds_per_step(options)
    patches = options.batch_num * counts["clinical"]
    if options.max_dataset_size:
        patches = min(patches, options.max_dataset_size)
    steps = -(-patches // options.batch_size)
    print(
        f"time  {seconds:.2f} s a step, measured; an epoch of {patches} patches is {steps} steps, "
        f"{format_seconds(seconds * steps)}; all {epochs} epochs "
        f"{format_seconds(seconds * steps * epochs)}"
    )
    return 0


def experiment_state(folder: Path, options: Namespace) -> str:
    """What would happen to the experiment's folder."""
    if not any(folder.glob("*.pt")):
        return f"{folder}, new"
    if options.continue_train:
        return f"{folder}, would go on"
    if options.overwrite:
        return f"{folder}, would be replaced (--overwrite)"
    return f"{folder} holds a model already: --continue_train, --overwrite or another --name"


def total_size(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.iterdir() if one.is_file())
    return path.stat().st_size if path.exists() else 0


def seconds_per_step(options: Namespace) -> float:
    """Time of a training step on patches of noise; the first steps, which set up, do not count."""
    device = choose_devices(options.gpu_ids)[0]
    check_precision(options.precision, device)
    set_up_cudnn(options.precision, options.deterministic)
    model = MODELS[options.model](options, device)
    if options.teacher:
        model.learn_from(load_teacher(options.teacher, model.scale).generator)
    shape = (options.batch_size, 1)
    batch = {
        "clinical": torch.rand(*shape, *[options.clinical_patch_size] * 2) * 2 - 1,
        "micro": torch.rand(*shape, *[options.micro_patch_size] * 2) * 2 - 1,
    }
    fastest = float("inf")
    # On a GPU the steps before a recorded one say nothing of those that are replayed.
    first = 1 if model.graphed is None else 1 + WARM_UP
    for _ in range(first + MEASURED_STEPS):
        start = time.perf_counter()
        model.set_input(batch)
        model.optimize_parameters()
        float(model.losses["G"])  # waits for the device
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
