from __future__ import annotations

import torch

from models.image_pool import ImagePool


def numbered(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32).view(count, 1, 1, 1)


def test_returns_every_image_until_full() -> None:
    pool = ImagePool(4)
    assert torch.equal(pool.query(numbered(0, 3)), numbered(0, 3))
    assert torch.equal(pool.query(numbered(3, 1)), numbered(3, 1))
    assert len(pool.images) == 4


def test_half_of_the_answers_are_old_once_full() -> None:
    pool = ImagePool(50, seed=3)
    pool.query(numbered(0, 50))
    answers = [float(pool.query(numbered(i, 1))) for i in range(50, 1050)]
    old = sum(answer != i for i, answer in enumerate(answers, start=50))
    assert 430 < old < 570  # 500 expected, 4.4 standard deviations either way
    assert len(pool.images) == 50


def test_size_zero_hands_images_straight_back() -> None:
    pool = ImagePool(0)
    images = numbered(0, 5)
    assert pool.query(images) is images


def test_state_goes_on_exactly() -> None:
    first = ImagePool(3, seed=1)
    first.query(numbered(0, 10))
    second = ImagePool(3, seed=99)
    assert second.load_state_dict(first.state_dict(), 1, torch.device("cpu"))
    for start in range(10, 60, 2):
        batch = numbered(start, 2)
        assert torch.equal(first.query(batch), second.query(batch))


def test_images_of_another_size_and_those_too_many_are_forgotten() -> None:
    first = ImagePool(3, seed=1)
    first.query(torch.zeros(3, 1, 8, 8))
    smaller = ImagePool(2)
    assert smaller.load_state_dict(first.state_dict(), 8, torch.device("cpu"))
    assert len(smaller.images) == 2
    other = ImagePool(3)
    assert not other.load_state_dict(first.state_dict(), 16, torch.device("cpu"))
    assert other.images == []
    assert other.query(torch.zeros(2, 1, 16, 16)).shape == (2, 1, 16, 16)


def test_an_image_keeps_nothing_of_its_batch_alive() -> None:
    pool = ImagePool(2)
    for _ in range(2):
        pool.query(torch.rand(4, 1, 8, 8))
    assert all(image.untyped_storage().nbytes() == image.nbytes for image in pool.images)
