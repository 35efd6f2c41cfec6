from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.statistics import Moments, measure, pooled

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

EPS = 1e-5


def maps(n: int = 2, channels: int = 3, rows: int = 20, columns: int = 17) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(n, channels, rows, columns, generator=draw)
    return values * torch.arange(1.0, channels + 1).view(-1, 1, 1) + 0.5


def exact(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean, sum of squared deviations and number of the pixels, in float64."""
    pixels = values.double()
    mean = pixels.mean((2, 3), keepdim=True)
    deviation = (pixels - mean).square().sum((2, 3), keepdim=True)
    return mean, deviation, values.shape[2] * values.shape[3]


def assert_same(found: Moments, expected: Moments, tolerance: float = 1e-6) -> None:
    for name in ("count", "mean", "deviation"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=tolerance, rtol=tolerance
        )


def bands(values: Tensor, heights: list[int]) -> list[Moments]:
    return [measure(part) for part in values.split(heights, dim=2)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_moments_are_those_of_each_slice_and_channel(memory_format: torch.memory_format) -> None:
    values = maps().contiguous(memory_format=memory_format)
    found = measure(values)
    assert {found.count.dtype, found.mean.dtype, found.deviation.dtype} == {torch.float64}
    assert found.count.shape == (2, 1, 1, 1)
    assert found.mean.shape == found.deviation.shape == (2, 3, 1, 1)
    mean, deviation, count = exact(values)
    torch.testing.assert_close(found.mean, mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.deviation, deviation, atol=1e-6, rtol=1e-6)
    assert found.count.flatten().tolist() == [count, count]


def test_affine_is_instance_norm() -> None:
    values = maps()
    scale, shift = measure(values).affine(EPS)
    assert scale.dtype == shift.dtype == torch.float32
    torch.testing.assert_close(values * scale + shift, F.instance_norm(values, eps=EPS))


def test_affine_is_instance_norm_of_a_map_without_contrast() -> None:
    values = torch.full((1, 2, 5, 5), 3.0)
    scale, shift = measure(values).affine(EPS)
    torch.testing.assert_close(values * scale + shift, torch.zeros_like(values), atol=1e-3, rtol=0)


def test_weighted_moments_are_those_of_the_chosen_pixels() -> None:
    values = maps()
    weights = torch.zeros(2, 1, 20, 17)
    weights[0, 0, 3:9, 2:11] = 1
    weights[1, 0, 10:, 5:] = 1
    found = measure(values, weights)
    for index, part in enumerate((values[:1, :, 3:9, 2:11], values[1:, :, 10:, 5:])):
        mean, deviation, count = exact(part)
        torch.testing.assert_close(found.mean[index], mean[0], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(found.deviation[index], deviation[0], atol=1e-5, rtol=1e-6)
        assert float(found.count[index]) == count


def test_one_mask_serves_every_channel_and_what_it_excludes_has_no_influence() -> None:
    values = maps(n=1)
    weights = torch.zeros(1, 1, 20, 17)
    weights[..., :10, :] = 1
    changed = values.clone()
    changed[:, :, 10:] = 1e4
    assert_same(measure(changed, weights), measure(values, weights))


def test_fractional_weights_count_as_repeated_pixels() -> None:
    values = maps(n=1, rows=4, columns=4)
    twice = torch.cat([values, values[:, :, :2]], dim=2)
    weights = torch.ones(1, 1, 4, 4)
    weights[:, :, :2] = 2
    assert_same(measure(values, weights), measure(twice), 1e-5)
    half = measure(values, weights / 8)
    torch.testing.assert_close(half.affine(EPS), measure(twice).affine(EPS))


def test_values_and_weights_are_not_changed() -> None:
    values, weights = maps(), torch.rand(2, 1, 20, 17)
    before = values.clone(), weights.clone()
    measure(values)
    measure(values, weights)
    assert torch.equal(values, before[0])
    assert torch.equal(weights, before[1])


@pytest.mark.parametrize("heights", [[20], [1] * 20, [4, 4, 4, 4, 4], [1, 16, 3]])
def test_bands_join_to_the_moments_of_the_whole(heights: list[int]) -> None:
    values = maps()
    assert_same(pooled(bands(values, heights)), measure(values))


def test_the_order_of_joining_is_without_effect() -> None:
    parts = bands(maps() + 100, [2, 5, 1, 12])
    first = pooled(parts)
    for order in permutations(parts):
        assert_same(pooled(order), first, 1e-12)
    left, right = parts[0].joined(parts[1]), parts[2].joined(parts[3])
    assert_same(left.joined(right), first, 1e-12)


def test_a_band_without_pixels_changes_nothing() -> None:
    values = maps()
    some = measure(values)
    # What it holds is far off, as bone beside the lung.
    none = measure(values * 1e3, torch.zeros(2, 1, 20, 17))
    for joined in (some.joined(none), none.joined(some), pooled([none, none, some, none])):
        assert_same(joined, some, 1e-15)
    empty = none.joined(none)
    assert all(bool(torch.isfinite(part).all()) for part in empty.affine(EPS))


def test_weighted_bands_join_to_the_weighted_whole() -> None:
    values, weights = maps(), (torch.rand(2, 1, 20, 17) > 0.6).float()
    weights[0, :, :8] = 0
    parts = [measure(*pair) for pair in zip(values.split(4, 2), weights.split(4, 2), strict=True)]
    assert_same(pooled(parts), measure(values, weights))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_small_spread_around_a_large_mean_keeps_its_digits(
    memory_format: torch.memory_format, weighted: bool
) -> None:
    """The sum of squares less the squared sum would lose them all in float32."""
    values = torch.randn(1, 4, 512, 256, generator=torch.Generator().manual_seed(0)) + 1000
    values = values.contiguous(memory_format=memory_format)
    weights = torch.ones(1, 1, 512, 256) if weighted else None
    mean, deviation, count = exact(values)
    parts = [
        measure(part, None if weights is None else weights[:, :, :48])
        for part in values[:, :, :480].split(48, 2)
    ]
    parts.append(measure(values[:, :, 480:], None if weights is None else weights[:, :, 480:]))
    for found in (measure(values, weights), pooled(parts)):
        assert float(found.count) == count
        torch.testing.assert_close(found.mean, mean, atol=1e-4, rtol=0)  # of a spread of 1
        torch.testing.assert_close(found.deviation, deviation, atol=0, rtol=1e-5)


def test_bands_of_different_levels_join_exactly() -> None:
    values = maps(n=1, rows=40).double()
    values += torch.arange(40.0).view(-1, 1) * 25  # each row has a mean of its own
    mean, deviation, _ = exact(values)
    found = pooled(bands(values, [1] * 40))
    torch.testing.assert_close(found.mean, mean, atol=0, rtol=1e-6)
    torch.testing.assert_close(found.deviation, deviation, atol=0, rtol=1e-6)


def test_half_precision_maps_are_measured_in_float32() -> None:
    values = maps().bfloat16()
    assert_same(measure(values), measure(values.float()), 0)
