from __future__ import annotations

import numpy as np
import pytest

from data.patches import CONSTANT_PATCH_NOISE, enliven
from data.sampling import item_generator


@pytest.mark.parametrize("value", [-1.0, 0.25, 1.0])
def test_a_constant_patch_gets_a_little_noise(value: float) -> None:
    patch = np.full((32, 32), value, dtype=np.float32)
    noisy = enliven(patch, item_generator(0, 1, 2))
    assert noisy.dtype == np.float32
    assert noisy.min() < noisy.max()
    assert np.abs(noisy - value).max() < 6 * CONSTANT_PATCH_NOISE
    assert noisy.min() >= -1
    assert noisy.max() <= 1
    np.testing.assert_array_equal(noisy, enliven(patch, item_generator(0, 1, 2)))


def test_any_other_patch_is_left_alone() -> None:
    patch = np.zeros((8, 8), dtype=np.float32)
    patch[0, 0] = 1e-3
    assert enliven(patch, item_generator(0)) is patch
