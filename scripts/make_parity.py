"""Write a parity file for tests/test_parity.py from this project's own code.

Usage: `python -m scripts.make_parity tests/parity_x2_ngf2.npz --sampling_times 1 --ngf 2`

Such a file guards against change; that the code is the published method is shown by parity files
made elsewhere, which tests/test_parity.py takes through PARITY_FILES. Weights and inputs are drawn
at random, then three training steps run on the CPU in float32 with the published SSIM constants.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from models.loss_names import LOSSES
from models.medical_cycle_gan import MODELS
from options import TrainOptions
from util.errors import run_program

STEPS = 3
STORED_OPTIONS = (
    "lambda_A",
    "lambda_B",
    "lambda_identity",
    "lambda_downsample_loss",
    "lambda_upsample_loss",
    "lambda_clinical_ssim",
    "lambda_micro_ssim",
    "lambda_G_A",
    "lambda_G_B",
    "pool_size",
    "lr",
    "beta1",
)


def main(words: list[str]) -> None:
    """Draw, run three steps, and store everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--sampling_times", default="1")
    parser.add_argument("--ngf", default="2")
    parser.add_argument("--batch_size", type=int, default=2)
    arguments = parser.parse_args(words)
    words = ["--preset", "paper", "--sampling_times", arguments.sampling_times]
    if arguments.sampling_times == "2":
        words += ["--model", "medical_cycle_ganx4"]  # its enlargement in idt_B is the published one
    words += ["--ngf", arguments.ngf, "--ndf", arguments.ngf, "--lr", "1e-4"]
    options, _ = TrainOptions().parse([*words, "--ssim_data_range", "1"], lambda: 0)
    torch.manual_seed(0)
    model = MODELS[options.model](options, torch.device("cpu"))
    for network in model.networks.values():
        for parameter in network.parameters():
            # A wider spread than the initialisation's, so that every part of the maths shows.
            torch.nn.init.normal_(parameter, 0.0, 0.2 if parameter.dim() > 1 else 0.05)
    shapes = {"clinical": options.clinical_patch_size, "micro": options.micro_patch_size}
    batch = {
        name: torch.rand(arguments.batch_size, 1, size, size) * 2 - 1
        for name, size in shapes.items()
    }
    stored = {f"option/{name}": np.array(float(vars(options)[name])) for name in STORED_OPTIONS}
    stored |= {f"input/{name}": tensor.numpy() for name, tensor in batch.items()}
    for name, network in model.networks.items():
        for key, weight in network.state_dict().items():
            stored[f"weights/{name}/{key}"] = weight.numpy().copy()
    model.set_input(batch)
    with torch.no_grad():
        model.forward()
        for role in ("fake_B", "rec_A", "fake_A", "rec_B"):
            stored[f"output/{role}"] = getattr(model, role).numpy()
        stored["output/D_A_real_B"] = model.D_A(model.real_B).numpy()
        stored["output/D_B_real_A"] = model.D_B(model.real_A).numpy()
    for step in range(1, STEPS + 1):
        model.optimize_parameters()
        for name in LOSSES:
            stored[f"loss/step{step}/{name}"] = np.array(float(model.losses[name]))
    for name, network in model.networks.items():
        for key, weight in network.state_dict().items():
            summary = [weight.mean(), weight.std(unbiased=False), weight.norm()]
            stored[f"after/{name}/{key}"] = np.array([float(value) for value in summary])
    np.savez_compressed(arguments.path, **stored)  # type: ignore[arg-type]


if __name__ == "__main__":
    run_program(main)
