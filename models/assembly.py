"""The four networks and their optimisers, as the options describe them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from models.initialisation import initialise, start_without_checkerboard
from models.networks import DownsamplingGenerator, SRGenerator, make_discriminator

ADAM_BETA2 = 0.999


def residual_blocks(name: str) -> int:
    """Number of residual blocks that a generator name such as sr_resnet_9blocks states."""
    return int(name.rsplit("_", 1)[1].removesuffix("blocks"))


class Networks(NamedTuple):
    """The four networks by the paper's names."""

    G_A: SRGenerator
    G_B: DownsamplingGenerator
    D_A: nn.Module
    D_B: nn.Module


def make_networks(options: Namespace) -> Networks:
    """New networks with new weights, on the CPU."""
    norm, times = options.norm, options.sampling_times
    blocks = residual_blocks(options.clinical2micronetG)
    generator = SRGenerator(times, options.ngf, blocks, norm, options.skip)
    blocks = residual_blocks(options.micro2clinicalnetG)
    networks = Networks(
        generator,
        DownsamplingGenerator(times, options.ngf, blocks, norm),
        make_discriminator(options.netD, options.ndf, options.n_layers_D, norm),
        make_discriminator(options.netD, options.ndf, options.n_layers_D, norm),
    )
    for network in networks:
        initialise(network, options.init_type, options.init_gain)
    if options.init_icnr:
        start_without_checkerboard(generator)
    return networks


def make_optimizers(
    options: Namespace, networks: Mapping[str, nn.Module]
) -> dict[str, torch.optim.Adam]:
    """One Adam for both generators and one for both discriminators, deciding on the device."""
    return {
        name: torch.optim.Adam(
            [*networks[f"{name}_A"].parameters(), *networks[f"{name}_B"].parameters()],
            options.lr,
            (options.beta1, ADAM_BETA2),
            fused=True,
        )
        for name in ("G", "D")
    }
