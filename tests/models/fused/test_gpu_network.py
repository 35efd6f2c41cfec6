"""The GPU's kernels, interpreted on the CPU: tests/test_gpu.py runs them as a card does."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import nn

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the kernels are first imported
pytest.importorskip("triton", reason="Triton comes with torch for Linux")
if torch.cuda.is_available():
    pytest.skip("tests/test_gpu.py runs the same kernels compiled", allow_module_level=True)

from models.base_model import parts_for_texture
from models.discriminators import PatchDiscriminator
from models.drawn_texture import Part
from models.fused.gpu_kernels import Pieces, measure_norm
from models.fused.gpu_network import Between, GpuNetwork
from models.networks import DownsamplingGenerator, SRGenerator


def loosened(network: nn.Module) -> nn.Module:
    """With biases and slopes that show where one is missing."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.1, 0.4)
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                module.bias.normal_(0, 0.1)
    return network


def weights(shape: torch.Size) -> torch.Tensor:
    """Of one sign, so that no gradient is small by chance."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def textured_parts() -> dict[str, Part]:
    return parts_for_texture(SRGenerator(1, 4, 1, "none", texture=2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "SR": (lambda: SRGenerator(2, 8, 2), 6),
    "SR, odd channels": (lambda: SRGenerator(1, 6, 1), 9),
    "SR, no norm, skip": (lambda: SRGenerator(3, 8, 1, "none", "cubic"), 5),
    "trunk of one with texture": (lambda: textured_parts()["trunk"], 6),
    "downsampling": (lambda: DownsamplingGenerator(2, 4, 1), 16),
    "downsampling, no norm": (lambda: DownsamplingGenerator(1, 4, 1, "none"), 16),
    "discriminator": (lambda: PatchDiscriminator(4, 3), 32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_results_and_gradients_are_those_of_the_layers(name: str) -> None:
    torch.manual_seed(0)
    make, edge = NETWORKS[name]
    network = loosened(make())
    images = torch.rand(2, 1, edge, edge) * 2 - 1
    results, gradients = [], []
    for run in (network, GpuNetwork(network, torch.float32)):
        given = images.clone().requires_grad_(True)
        network.zero_grad(set_to_none=True)
        output = run(given)
        (output * weights(output.shape)).sum().backward()
        results.append(output.detach())
        mine = {key: parameter.grad for key, parameter in network.named_parameters()}
        gradients.append({"input": given.grad, **mine})
    assert (results[0] - results[1]).abs().max() < 1e-5
    largest = max(float(g.norm()) for g in gradients[0].values() if g is not None)
    for key, expected in gradients[0].items():
        found = gradients[1][key]
        assert expected is not None
        if found is None:  # a bias that an instance norm takes away: its true gradient is 0
            assert key.endswith("bias")
            assert float(expected.norm()) < 1e-5 * largest
        else:
            assert float((found - expected).norm()) < 1e-4 * float(expected.norm()), key


def test_statistics_of_pieces_are_those_of_all_pixels() -> None:
    """A large mean beside a small deviation, over more pixels than one program holds at once."""
    x = (1000 + torch.randn(2, 3, 90, 70)).contiguous(memory_format=torch.channels_last)
    pieces = Pieces(90 * 70, 3)
    assert pieces.count > 1
    assert pieces.count * pieces.rounds * pieces.rows >= 90 * 70
    scale, shift = measure_norm(x, 1e-5)
    exact = x.double()
    variance, mean = torch.var_mean(exact, (2, 3), correction=0)
    assert torch.allclose(scale.double(), (variance + 1e-5).rsqrt(), rtol=1e-4)
    assert torch.allclose(shift.double(), -mean * (variance + 1e-5).rsqrt(), rtol=1e-4)


def test_pieces_cover_every_size() -> None:
    for pixels in (1, 9, 4096, 1 << 22):
        for channels in (1, 8, 48, 512, 4096):
            pieces = Pieces(pixels, channels)
            assert pieces.block >= channels
            covered = pieces.count * pieces.rounds * pieces.rows
            assert covered >= pixels > (pieces.count - 1) * pieces.rounds * pieces.rows


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("edge", [0, 1, 3])
def test_the_gradient_of_padding_and_shuffle_is_its_adjoint(shuffled: bool, edge: int) -> None:
    """<A x, y> = <x, A* y>, on maps so small that a pixel is mirrored on both sides."""
    x = torch.randn(1, 8, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    read, whole = Between.apply(x, None, None, None, None, shuffled, edge, False)
    assert whole is None
    weights = torch.randn_like(read)
    (read * weights).sum().backward()
    assert x.grad is not None
    assert torch.allclose((read.detach() * weights).sum(), (x * x.grad).sum(), rtol=1e-4)
