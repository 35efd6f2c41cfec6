"""What a run would be made of: networks, parameters, arithmetic and memory of a step."""

from __future__ import annotations

from argparse import Namespace

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.losses import GANLoss
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from models.networks import count_parameters

BYTES_A_WEIGHT = 4 * 4  # float32: the weight, its gradient and Adam's two moments
PROGRAM_BYTES = 0.35e9  # Python and its libraries in one process
# Peak over kept maps: gradients of maps and work space (docs/training.md compares with runs).
WORK_SHARE = 1.7


def summary(options: Namespace) -> str:
    """Lines for the user's eyes; computes with shapes alone, so it takes no memory and no time.

    Args:
        options: of the run.
    """
    model = MODELS[options.model](options, [torch.device("meta")])
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
