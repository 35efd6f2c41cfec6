"""Tests for data/sampling.py."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data.sampling import EpochSampler


class Keys(Dataset[int]):
    """Items are their own keys."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, key: int) -> int:
        return key


def batches(sampler: EpochSampler, workers: int) -> list[list[int]]:
    loader = DataLoader(Keys(), batch_size=4, sampler=sampler, num_workers=workers)
    return [batch.tolist() for batch in loader if isinstance(batch, torch.Tensor)]


def test_an_epoch_is_a_permutation_of_its_own_keys() -> None:
    sampler = EpochSampler(10, seed=5)
    for epoch in range(3):
        sampler.set_position(epoch)
        keys = list(sampler)
        assert sorted(keys) == list(range(10 * epoch, 10 * epoch + 10))
        assert keys != sorted(keys)


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        sampler = EpochSampler(50, seed)
        sampler.set_position(epoch)
        return tuple(key % 50 for key in sampler)

    assert order(1, 0) == order(1, 0)
    assert len({order(1, 0), order(1, 1), order(2, 0), order(2, 1)}) == 4


def test_without_shuffling_keys_rise() -> None:
    sampler = EpochSampler(4, seed=0, shuffle=False)
    assert list(sampler) == [0, 1, 2, 3]


def test_a_finished_epoch_is_followed_by_the_next() -> None:
    sampler = EpochSampler(4, seed=0, shuffle=False)
    sampler.set_position(2, 3)
    assert len(sampler) == 1
    assert list(sampler) == [11]
    assert len(sampler) == 4
    assert list(sampler) == [12, 13, 14, 15]


def test_a_position_set_during_an_epoch_is_kept() -> None:
    sampler = EpochSampler(4, seed=0, shuffle=False)
    keys = iter(sampler)
    next(keys)
    sampler.set_position(7, 1)
    assert list(keys) == [1, 2, 3]
    assert list(sampler) == [29, 30, 31]


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_exactly_the_remainder(workers: int) -> None:
    whole = EpochSampler(10, seed=3)
    whole.set_position(1)
    expected = list(whole)
    resumed = EpochSampler(10, seed=3)
    resumed.set_position(1, 4)
    rest = [key for batch in batches(resumed, workers) for key in batch]
    assert rest == expected[4:]


def test_batches_do_not_depend_on_workers() -> None:
    assert batches(EpochSampler(10, seed=3), 0) == batches(EpochSampler(10, seed=3), 2)


def test_workers_that_live_on_follow_the_sampler_from_epoch_to_epoch() -> None:
    sampler = EpochSampler(10, seed=3)
    loader = DataLoader(
        Keys(), batch_size=5, sampler=sampler, num_workers=2, persistent_workers=True
    )
    sampler.set_position(4, 5)
    lists = [[int(key) for batch in loader for key in batch] for _ in range(2)]
    sampler.set_position(9)
    lists.append([int(key) for batch in loader for key in batch])
    assert [len(keys) for keys in lists] == [5, 10, 10]
    assert [{key // 10 for key in keys} for keys in lists] == [{4}, {5}, {9}]


@pytest.mark.parametrize(("epoch", "offset"), [(-1, 0), (0, -1), (0, 11)])
def test_position_outside_is_refused(epoch: int, offset: int) -> None:
    with pytest.raises(ValueError, match="offset of 0 to 10"):
        EpochSampler(10, seed=0).set_position(epoch, offset)


def test_position_at_the_end_of_an_epoch_leaves_nothing_of_it() -> None:
    sampler = EpochSampler(10, seed=0)
    sampler.set_position(0, 10)
    assert len(sampler) == 0
    assert list(sampler) == []
    assert min(sampler) == 10


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_step_of_one_large_batch(processes: int) -> None:
    def keys(rank: int, count: int) -> list[int]:
        return list(EpochSampler(12, seed=3, rank=rank, processes=count))

    whole = keys(0, 1)
    shares = [keys(rank, processes) for rank in range(processes)]
    assert sorted(key for share in shares for key in share) == sorted(whole)
    for step in range(12 // (2 * processes)):
        together = {key for share in shares for key in share[2 * step : 2 * step + 2]}
        assert together == set(whole[2 * processes * step : 2 * processes * (step + 1)])


def test_items_that_do_not_reach_all_processes_are_left_out() -> None:
    samplers = [EpochSampler(11, seed=3, rank=rank, processes=4) for rank in range(4)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [2] * 4
    assert len({key for share in shares for key in share}) == 8
    for sampler in samplers:
        sampler.set_position(1, 8)
        assert len(sampler) == len(list(sampler)) == 0


def test_another_number_of_processes_goes_on_with_the_items_that_are_left() -> None:
    whole = list(EpochSampler(12, seed=3))
    left = []
    for rank in range(2):
        sampler = EpochSampler(12, seed=3, rank=rank, processes=2)
        sampler.set_position(0, 6)
        assert len(sampler) == 3
        left += list(sampler)
    assert sorted(left) == sorted(whole[6:])
