from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_helpers import (
    CPU,
    ReferenceNorm,
    forward_slice,
    image,
    scoped_reference,
    small_generator,
)
from torch import nn

from models.fused.statistics import measure
from models.inference.norm_scope import FEWEST_PIXELS, PixelWeights, at_least, scope_weights
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def generator() -> SRGenerator:
    return small_generator(2)


def lungs(rows: int, columns: int) -> np.ndarray:
    """Two blocks of unlike size, with more than `FEWEST_PIXELS` in a slice of 48 x 60."""
    mask = np.zeros((rows, columns), dtype=np.uint8)
    mask[rows // 6 : -rows // 6, columns // 10 : columns // 2 - 3] = 1
    mask[rows // 4 : -rows // 10, columns // 2 + 3 : -columns // 12] = 1
    return mask


def test_a_mask_of_everything_changes_nothing(generator: SRGenerator) -> None:
    resolver = SuperResolver(generator, CPU)
    values = image(40, 44)
    whole = resolver.upscale_slice(values)
    masked = resolver.upscale_slice(values, np.ones((40, 44), dtype=np.uint8))
    np.testing.assert_allclose(masked, whole, atol=1e-5)
    np.testing.assert_allclose(whole, forward_slice(generator, values), atol=1e-5)
    # The scope of one call does not reach into the next.
    assert np.array_equal(resolver.upscale_slice(values), whole)


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_every_norm_has_the_statistics_of_the_masked_pixels(times: int) -> None:
    """Compared with a plain network in float64 whose norms weigh pixels by the enlarged mask."""
    generator = small_generator(times, blocks=2)
    values, mask = image(48, 60), lungs(48, 60)
    assert FEWEST_PIXELS < np.count_nonzero(mask) < mask.size
    found = SuperResolver(generator, CPU).upscale_slice(values, mask)
    np.testing.assert_allclose(found, scoped_reference(generator, values, mask), atol=1e-5)
    assert np.abs(found - forward_slice(generator, values)).max() > 1e-2


def test_the_reference_without_a_mask_is_instance_norm() -> None:
    values = torch.randn(2, 3, 8, 9) * 4 + 2
    found = ReferenceNorm(1e-5, torch.ones(1, 1, 8, 9))(values)
    torch.testing.assert_close(found, nn.InstanceNorm2d(3)(values), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_without_instance_norm_a_scope_changes_nothing(norm: str) -> None:
    generator = small_generator(2, norm=norm)
    values = image(48, 60)
    found = SuperResolver(generator, CPU).upscale_slice(values, lungs(48, 60))
    np.testing.assert_allclose(found, forward_slice(generator, values), atol=1e-5)


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
    x = torch.rand(1, 3, 64, 80) * 5
    mask = np.zeros((64, 80), dtype=bool)
    mask[10:50, 20:60] = True
    scale, shift = measure(x, scope_weights(mask, CPU).rows(0, 64, 1)).affine(1e-5)
    result = (x * scale + shift)[:, :, 10:50, 20:60]
    expected = nn.InstanceNorm2d(3)(x[:, :, 10:50, 20:60])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_a_small_mask_takes_the_statistics_of_its_nearest_pixels(generator: SRGenerator) -> None:
    values, mask = image(60, 64), np.zeros((60, 64), dtype=bool)
    mask[28:31, 20:24] = True
    found = SuperResolver(generator, CPU).upscale_slice(values, mask)
    grown = at_least(mask, FEWEST_PIXELS)
    np.testing.assert_allclose(found, scoped_reference(generator, values, grown), atol=1e-5)


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


def test_an_empty_scope_is_refused(generator: SRGenerator) -> None:
    with pytest.raises(ValueError, match="empty mask"):
        SuperResolver(generator, CPU).upscale_slice(image(8, 8), np.zeros((8, 8)))


def test_any_value_but_zero_is_inside_the_scope() -> None:
    mask = np.array([[0, 1, 2], [3, 0, -1]])
    weights = scope_weights(mask, CPU)
    assert weights.mask.dtype == torch.float32
    assert weights.mask.tolist() == [[[[0, 1, 1], [1, 0, 1]]]]


def test_weights_keep_to_their_pixels_on_finer_grids() -> None:
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])[None, None]
    for factor in (1, 2, 4):
        whole = nn.functional.interpolate(mask, scale_factor=factor, mode="nearest")
        weights = PixelWeights(mask)
        for first in range(3 * factor):
            for last in range(first + 1, 3 * factor + 1):
                assert torch.equal(weights.rows(first, last, factor), whole[:, :, first:last])
