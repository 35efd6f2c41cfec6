from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.networks import SRGenerator
from models.norm_scope import FEWEST_PIXELS, ScopedInstanceNorm, at_least, scope_norms
from models.super_resolver import SuperResolver

CPU = torch.device("cpu")


@pytest.fixture
def generator() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(2, ngf=8, blocks=1)


def image(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)


def test_every_instance_norm_is_replaced(generator: SRGenerator) -> None:
    keys = list(generator.state_dict())
    scope_norms(generator)
    kinds = [type(module) for module in generator.modules()]
    assert nn.InstanceNorm2d not in kinds
    assert kinds.count(ScopedInstanceNorm) == 6
    assert list(generator.state_dict()) == keys


def test_a_mask_of_everything_changes_nothing(generator: SRGenerator) -> None:
    resolver = SuperResolver(generator, CPU)
    values = image(40, 44)
    whole = resolver.upscale_slice(values)
    masked = resolver.upscale_slice(values, np.ones((40, 44), dtype=np.uint8))
    np.testing.assert_allclose(masked, whole, atol=1e-5)
    # The scope of one call does not reach into the next.
    assert np.array_equal(resolver.upscale_slice(values), whole)


def test_what_lies_far_outside_the_mask_has_no_influence(generator: SRGenerator) -> None:
    resolver = SuperResolver(generator, CPU)
    first, second = image(64, 128), image(64, 128, seed=1)
    first[:, :64] = second[:, :64] = image(64, 64, seed=2)
    second[:, 64:] += 3.0  # bone beyond any window
    mask = np.zeros((64, 128), dtype=bool)
    mask[:, :40] = True  # farther from the change than the network sees
    inside = slice(0, 40 * 4)
    scoped = [resolver.upscale_slice(values, mask)[:, inside] for values in (first, second)]
    np.testing.assert_allclose(scoped[0], scoped[1], atol=1e-5)
    whole = [resolver.upscale_slice(values)[:, inside] for values in (first, second)]
    assert np.abs(whole[0] - whole[1]).max() > 1e-2


def test_statistics_are_those_of_the_masked_pixels() -> None:
    norms = nn.Sequential(nn.InstanceNorm2d(3))
    scope = scope_norms(norms)
    x = torch.rand(1, 3, 64, 80) * 5
    mask = np.zeros((64, 80), dtype=bool)
    mask[10:50, 20:60] = True
    scope.set_mask(mask, CPU)
    result = norms(x)[:, :, 10:50, 20:60]
    expected = nn.InstanceNorm2d(3)(x[:, :, 10:50, 20:60])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_a_small_mask_grows_to_its_nearest_pixels() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[50, 50] = True
    grown = at_least(mask, FEWEST_PIXELS)
    assert FEWEST_PIXELS <= np.count_nonzero(grown) < FEWEST_PIXELS + 100
    rows, columns = np.nonzero(grown)
    assert np.hypot(rows - 50, columns - 50).max() < 19  # a disk of 1024 pixels has radius 18
    large = np.ones((40, 40), dtype=bool)
    assert at_least(large, FEWEST_PIXELS) is large
    assert at_least(mask[45:55, 45:55], FEWEST_PIXELS).all()
    with pytest.raises(ValueError, match="empty mask"):
        at_least(np.zeros((4, 4), dtype=bool), 4)
