"""Fused convolutions give what the layers give, one by one: results, gradients and training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from training_helpers import tiny_batch, tiny_model

import models.fused.activation
import models.fused.convolution
from models.discriminators import PatchDiscriminator, PixelDiscriminator
from models.fused.network import FusedNetwork, run_fused
from models.medical_cycle_gan import MedicalCycleGANModel
from models.networks import (
    DownsamplingGenerator,
    SRGenerator,
    initialise,
)

Network = SRGenerator | DownsamplingGenerator | PatchDiscriminator | PixelDiscriminator
CASES: dict[str, tuple[Callable[[], Network], tuple[int, int, int]]] = {
    "8x": (lambda: SRGenerator(3, 16, 2), (2, 16, 12)),
    "4x": (lambda: SRGenerator(2, 8, 1), (1, 9, 21)),
    "2x of odd size": (lambda: SRGenerator(1, 8, 1), (1, 17, 13)),
    "without norm": (lambda: SRGenerator(1, 8, 1, "none"), (1, 12, 10)),
    "beside cubic": (lambda: SRGenerator(2, 8, 1, "none", "cubic"), (2, 11, 14)),
    "shrinking 8x": (lambda: DownsamplingGenerator(3, 4, 1), (2, 64, 64)),
    "shrinking 4x": (lambda: DownsamplingGenerator(2, 4, 1), (1, 48, 80)),
    "patches": (lambda: PatchDiscriminator(8), (2, 64, 40)),
    "pixels": (lambda: PixelDiscriminator(8), (2, 20, 40)),
}


@pytest.fixture(params=[0, 1 << 10, 1 << 13], ids=["whole", "low bands", "bands"])
def bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole maps as on a GPU, and bands of two heights."""
    for module in (models.fused.activation, models.fused.convolution):
        monkeypatch.setattr(module, "TRAINING_BAND_VALUES", request.param)


def made(case: str, dtype: torch.dtype) -> tuple[Network, Tensor]:
    """A network with biases, and images that want a gradient."""
    make, (count, height, width) = CASES[case]
    torch.manual_seed(0)
    network = make()
    initialise(network, "xavier", 1.0)
    for parameter in network.parameters():
        if parameter.dim() == 1 and parameter.numel() > 1:
            nn.init.normal_(parameter, 0, 0.1)
    images = torch.randn(count, 1, height, width, dtype=dtype, requires_grad=True)
    return network.to(dtype), images


def gradients(network: nn.Module, images: Tensor, result: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    result.backward(torch.randn(result.shape, dtype=result.dtype))
    found = [parameter.grad for parameter in network.parameters()] + [images.grad]
    network.zero_grad()
    images.grad = None
    return [gradient for gradient in found if gradient is not None]


def both_ways(
    case: str, dtype: torch.dtype, tolerance: float
) -> tuple[list[str], list[Tensor], list[Tensor]]:
    """Names, fused and plain gradients of a case, whose results agree within the tolerance."""
    network, images = made(case, dtype)
    plain = network(images)
    expected = gradients(network, images, plain)
    fused = FusedNetwork(network, dtype)(images)
    found = gradients(network, images, fused)
    torch.testing.assert_close(fused, plain, rtol=0, atol=tolerance)
    names = [*(name for name, _ in network.named_parameters()), "images"]
    assert len(names) == len(found) == len(expected)
    return names, found, expected


@pytest.mark.usefixtures("bands")
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_in_float64(case: str) -> None:
    _, found, expected = both_ways(case, torch.float64, 1e-12)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.usefixtures("bands")
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_in_float32(case: str) -> None:
    names, found, expected = both_ways(case, torch.float32, 1e-5)
    for name, ours, theirs in zip(names, found, expected, strict=True):
        if not name.endswith("bias"):  # those before a norm are rounding alone, see float64
            assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize("case", ["4x", "shrinking 4x", "patches"])
def test_bf16_is_as_near_as_under_autocast(case: str) -> None:
    network, images = made(case, torch.float32)
    exact = network(images)
    expected = torch.cat([part.flatten() for part in gradients(network, images, exact)])
    with torch.autocast("cpu", torch.bfloat16):
        layers = network(images).float()
    fused = run_fused(network.model, images, torch.bfloat16)
    errors = []
    for result in (layers, fused):
        assert result.dtype == torch.float32
        found = gradients(network, images, result)
        assert all(gradient.dtype == torch.float32 for gradient in found)
        gradient = torch.cat([part.flatten() for part in found])
        errors.append(
            (
                float((result - exact).detach().norm() / exact.detach().norm()),
                float((gradient - expected).norm() / expected.norm()),
            )
        )
    assert errors[1][0] < max(1.2 * errors[0][0], 1e-3)
    assert errors[1][1] < 1.2 * errors[0][1]


def test_what_wants_no_gradient_gets_none() -> None:
    network, images = made("patches", torch.float32)
    network.requires_grad_(False)
    run_fused(network.model, images, torch.float32).sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
    network.requires_grad_(True)
    run_fused(network.model, images.detach(), torch.float32).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_fewer_maps_are_kept_than_by_the_layers() -> None:
    """Of each convolution one map, where torch keeps what every layer took in."""
    network, images = made("8x", torch.float32)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() if tensor.dim() == 4 and len(tensor) == len(images) else 0)
        return tensor

    totals = []
    for run in (network, FusedNetwork(network, torch.float32)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(images)
        totals.append(sum(kept))
    assert totals[1] < 0.5 * totals[0]


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ValueError, match="expected a layer of this project's networks, got Gelu"):
        run_fused([type("Gelu", (nn.Module,), {})()], torch.zeros(1, 1, 8, 8), torch.float32)


def steps(engine: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Losses of twenty training steps in float64."""
    model = tiny_model("--engine", engine, "--lr", "2e-4")
    for network in model.networks.values():
        network.double()

    def run(self: MedicalCycleGANModel, network: nn.Module, images: Tensor) -> Tensor:
        if engine == "eager":
            result: Tensor = network(images)
            return result
        return FusedNetwork(network, torch.float64)(images)

    monkeypatch.setattr(MedicalCycleGANModel, "run", run)
    losses = []
    for seed in range(20):
        batch = tiny_batch(seed, count=1)
        model.set_input({name: images.double() for name, images in batch.items()})
        model.optimize_parameters()
        losses.append({name: float(loss) for name, loss in model.losses.items()})
    return losses


@pytest.mark.slow
def test_twenty_steps_have_the_losses_of_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where rounding cannot grow into a difference that would hide another one."""
    eager, fused = (steps(engine, monkeypatch) for engine in ("eager", "fused"))
    assert eager[0] != eager[-1]
    for ours, theirs in zip(fused, eager, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
