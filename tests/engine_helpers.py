"""Small generators and slices that the tests of the inference engine share."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from models.networks import SRGenerator

CPU = torch.device("cpu")


def small_generator(
    times: int = 2,
    ngf: int = 8,
    blocks: int = 1,
    norm: str = "instance",
    skip: str = "none",
    texture: int = 0,
) -> SRGenerator:
    """A generator in evaluation mode whose layers of one kind all differ, as trained ones do."""
    torch.manual_seed(0)
    generator = SRGenerator(times, max(ngf, 2**times), blocks, norm, skip, texture)
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.05, 0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                batch_statistics(module)
    return generator.eval()


def batch_statistics(norm: nn.BatchNorm2d) -> None:
    """Give a batch norm running statistics as of training."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.2, 2.0)


def image(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """A slice of noise in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)


def disc(rows: int, columns: int, y: float, x: float, radius: float) -> np.ndarray:
    """A mask of a disc."""
    row, column = np.mgrid[:rows, :columns]
    mask: np.ndarray = np.hypot(row - y, column - x) < radius
    return mask


def images(*shape: int, seed: int = 0) -> Tensor:
    """(N, 1, H, W) of noise in [-1, 1]; each slice has contrast and brightness of its own."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand(shape[0], 1, *shape[1:], generator=draw) * 2 - 1
    shares = torch.linspace(1, 0.5, shape[0]).view(-1, 1, 1, 1)
    return values * shares + (1 - shares)


def forward(generator: nn.Module, values: Tensor) -> Tensor:
    """One plain forward pass."""
    with torch.inference_mode():
        result: Tensor = generator(values)
        return result


def forward_slice(generator: nn.Module, values: np.ndarray) -> np.ndarray:
    """One plain forward pass on one slice (rows, columns)."""
    result: np.ndarray = forward(generator, torch.from_numpy(values)[None, None])[0, 0].numpy()
    return result


class ReferenceNorm(nn.Module):
    """Instance norm over the pixels of a mask, which is brought to the map's size by `nearest`."""

    def __init__(self, eps: float, mask: Tensor) -> None:
        super().__init__()
        self.eps = eps
        self.mask = mask

    def forward(self, values: Tensor) -> Tensor:
        weights = nn.functional.interpolate(self.mask, size=values.shape[2:], mode="nearest")
        total = weights.sum((2, 3), keepdim=True)
        mean = (values * weights).sum((2, 3), keepdim=True) / total
        variance = ((values - mean).square() * weights).sum((2, 3), keepdim=True) / total
        return (values - mean) / torch.sqrt(variance + self.eps)


def scoped_reference(generator: SRGenerator, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The generator in float64, each of its instance norms over the pixels of `mask` alone."""
    weights = torch.from_numpy(mask.astype(np.float64))[None, None]
    network = copy.deepcopy(generator).double()
    for parent, name, norm in instance_norms(network):
        setattr(parent, name, ReferenceNorm(norm.eps, weights))
    return forward_slice(network, values.astype(np.float64))


def instance_norms(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.InstanceNorm2d]]:
    """Every instance norm in the network's order, with its parent and its name there."""
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.InstanceNorm2d):
            parent, _, name = path.rpartition(".")
            yield network.get_submodule(parent), name, module
