"""Corners stay in place, whatever the affine."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.volumes.geometry import corners, enlarged_affine, shrunk_affine


def random_affine(seed: int) -> np.ndarray:
    """A rotated, anisotropic, often mirrored affine far from the origin."""
    generator = np.random.default_rng(seed)
    spacing = generator.uniform(0.01, 5.0, 3) * generator.choice([-1.0, 1.0], 3)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * spacing
    affine[:3, 3] = generator.uniform(-500, 500, 3)
    return affine


def test_known_answer_at_eightfold() -> None:
    affine = np.diag([-0.7, -0.7, 2.5, 1.0])
    affine[:3, 3] = (10.0, 20.0, -30.0)
    enlarged = enlarged_affine(affine, 8)
    np.testing.assert_allclose(np.diag(enlarged), [-0.0875, -0.0875, 2.5, 1.0])
    # 3.5 new pixels of 0.0875 mm towards the corner, which lies at greater x and y here.
    np.testing.assert_allclose(enlarged[:3, 3], [10.30625, 20.30625, -30.0])


def test_corners_of_one_voxel() -> None:
    affine = np.diag([2.0, 4.0, 6.0, 1.0])
    found = corners(affine, (1, 1, 1))
    assert found.shape == (8, 3)
    np.testing.assert_allclose(np.abs(found), np.tile([1.0, 2.0, 3.0], (8, 1)))
    assert len(np.unique(found, axis=0)) == 8


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("scale", [1, 2, 4, 8, 16])
def test_corners_coincide_and_shrinking_undoes_enlarging(seed: int, scale: int) -> None:
    affine = random_affine(seed)
    columns, rows, slices = np.random.default_rng(seed).integers(1, 600, 3).tolist()
    enlarged = enlarged_affine(affine, scale)
    before = corners(affine, (columns, rows, slices))
    after = corners(enlarged, (columns * scale, rows * scale, slices))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-9)
    np.testing.assert_allclose(shrunk_affine(enlarged, scale), affine, rtol=0, atol=1e-9)


def test_slices_keep_their_height() -> None:
    affine = random_affine(3)
    centre = np.array([[3.5, 3.5, 9.0, 1.0]]).T  # corner of voxel (4, 4): four-pixel block's edge
    enlarged = enlarged_affine(affine, 4)
    np.testing.assert_allclose(enlarged[:, 2], affine[:, 2])
    np.testing.assert_allclose(enlarged @ [15.5, 15.5, 9.0, 1.0], (affine @ centre)[:, 0])


def test_input_is_left_alone() -> None:
    affine = np.eye(4)
    enlarged_affine(affine, 8)
    shrunk_affine(affine, 8)
    np.testing.assert_array_equal(affine, np.eye(4))
