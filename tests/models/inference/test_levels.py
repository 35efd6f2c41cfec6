from __future__ import annotations

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.inference.levels import (
    Affine,
    RecomputedLevel,
    ShuffledLevel,
    StoredLevel,
    convolve_rows,
    norm_activate_rows,
)

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


def values(rows: int = 11, channels: int = 4, columns: int = 6) -> Tensor:
    return torch.randn(2, channels, rows, columns, generator=torch.Generator().manual_seed(0))


def add_one(rows: Tensor, first: int, last: int) -> None:
    assert rows.shape[2] == last - first
    rows += 1


def all_bands(height: int) -> list[tuple[int, int]]:
    return list(combinations(range(height + 1), 2))


@pytest.mark.parametrize(
    "order",
    [
        [(0, 11)],
        [(0, 4), (3, 8), (7, 11), (0, 11)],  # bands with the margins of a convolution
        [(5, 6), (0, 2), (0, 11), (4, 9)],
    ],
)
def test_each_row_is_finished_once_in_whatever_order_it_is_read(
    order: list[tuple[int, int]],
) -> None:
    raw = values()
    level = StoredLevel(raw.clone(), add_one)
    for first, last in order:
        assert torch.equal(level.read(first, last), raw[:, :, first:last] + 1)


def test_rows_that_are_not_read_stay_unfinished() -> None:
    finished: list[tuple[int, int]] = []
    level = StoredLevel(values(), lambda rows, first, last: finished.append((first, last)))
    level.read(0, 3)
    level.read(1, 3)
    level.read(2, 5)
    assert finished == [(0, 3), (3, 5)]


def test_a_finished_map_is_handed_out_as_it_lies() -> None:
    raw = values()
    level = StoredLevel(raw, None)
    assert level.height == 11
    assert level.read(2, 5).data_ptr() == raw[:, :, 2:].data_ptr()


def test_a_recomputed_map_is_convolved_at_each_reading() -> None:
    raw = values()
    read: list[tuple[int, int]] = []

    def convolve(first: int, last: int) -> Tensor:
        read.append((first, last))
        return raw[:, :, first:last].clone()

    level = RecomputedLevel(11, convolve, add_one)
    for _ in range(2):
        assert torch.equal(level.read(2, 5), raw[:, :, 2:5] + 1)
    assert read == [(2, 5)] * 2
    assert level.height == 11


def test_a_shuffled_map_gives_the_rows_of_pixel_shuffle() -> None:
    raw = values(rows=5)
    level = ShuffledLevel(StoredLevel(raw, None))
    assert level.height == 10
    whole = F.pixel_shuffle(raw, 2)
    for first, last in all_bands(10):
        assert torch.equal(level.read(first, last), whole[:, :, first:last])


@pytest.mark.parametrize("slope", [None, 0.0, 0.25, 1.5])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_rows_are_finished_by_norm_activation_and_sum(
    slope: float | None, normed: bool, residual: bool
) -> None:
    raw = values()
    affine: Affine | None = None
    if normed:
        affine = (torch.rand(2, 4, 1, 1) + 0.5, torch.randn(2, 4, 1, 1))
    added = torch.randn_like(raw) if residual else None
    expected = raw if affine is None else raw * affine[0] + affine[1]
    if slope is not None:
        expected = torch.where(expected < 0, expected * slope, expected)
    if added is not None:
        expected = expected + added
    before = expected if added is None else added.clone()
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.03)):
        rows = raw.to(dtype).contiguous(memory_format=torch.channels_last)
        norm_activate_rows(rows, affine, slope, None if added is None else added.to(dtype))
        assert rows.dtype == dtype
        torch.testing.assert_close(rows.float(), expected, atol=tolerance, rtol=tolerance)
    assert added is None or torch.equal(added, before)


def test_rows_are_finished_in_place_in_the_map() -> None:
    whole = values()
    before = whole.clone()
    norm_activate_rows(whole[:, :, 3:5], None, 0.0)
    assert torch.equal(whole[:, :, 3:5], before[:, :, 3:5].relu())
    assert torch.equal(whole[:, :, :3], before[:, :, :3])
    assert torch.equal(whole[:, :, 5:], before[:, :, 5:])


@pytest.mark.parametrize("reflect", [True, False])
@pytest.mark.parametrize("padding", [1, 3])
@pytest.mark.parametrize("height", [4, 7])
def test_a_band_is_convolved_with_its_true_neighbours(
    height: int, padding: int, reflect: bool
) -> None:
    raw = values(rows=height)
    size = 2 * padding + 1
    weight, bias = torch.randn(3, 4, size, size) / size, torch.randn(3)
    padded = F.pad(raw, [padding] * 4, mode="reflect" if reflect else "constant")
    whole = F.conv2d(padded, weight, bias)
    for first, last in all_bands(height):
        level = StoredLevel(raw, None)
        band = convolve_rows(level, first, last, weight, bias, padding, reflect)
        torch.testing.assert_close(band, whole[:, :, first:last], atol=1e-5, rtol=0)
