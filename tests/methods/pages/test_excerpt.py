"""What a page carries of a case: its size, its place in millimetres, its values."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence

import nibabel as nib
import numpy as np
import pytest

from data.volumes.geometry import enlarged_affine
from methods.pages.excerpt import (
    Excerpt,
    Layer,
    collect,
    compact,
    nifti_gz,
    plan_excerpts,
    plane_of,
    slice_centres,
)

SIZE = (40, 30, 50)  # x, y, z
SCALE = 4
FOCUS = (23, 14, 31)
AFFINE = np.array([[-0.6, 0.1, 0.0, 30.0], [0.1, 0.7, 0.0, -5.0], [0, 0, 2.0, 9], [0, 0, 0, 1]])


def ramp(affine: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """A volume (z, y, x) whose value is a linear function of the place in millimetres."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    voxels = np.stack([x, y, z, np.ones_like(x)], -1)
    mm = voxels @ affine.T
    return np.ascontiguousarray((mm[..., :3] @ [3.0, 5.0, 7.0] * 10).transpose(2, 1, 0))


def test_small_case_is_shown_whole() -> None:
    (only,) = plan_excerpts(SIZE, SCALE, 40 * 30 * 50 * 16, FOCUS)
    assert (only.name, only.slices, only.rows, only.columns, only.shrink) == (
        "whole volume", range(50), range(30), range(40), 1,
    )  # fmt: skip


@pytest.mark.parametrize("voxels", [1, 100, 5000, 100_000, 900_000])
@pytest.mark.parametrize("focus", [FOCUS, (0, 0, 0), (49, 29, 39)])
def test_parts_keep_to_the_budget_and_show_the_focus(
    voxels: int, focus: tuple[int, int, int]
) -> None:
    overview, detail = plan_excerpts(SIZE, SCALE, voxels, focus)
    assert overview.rows == range(30)
    assert overview.columns == range(40)
    assert detail.shrink == 1
    for part in (overview, detail):
        assert focus[0] in part.slices
        assert all(0 <= index < 50 for index in part.slices)
    assert focus[1] in detail.rows
    assert focus[2] in detail.columns
    if voxels >= 5000:
        for part in (overview, detail):
            fine = len(part.rows) * len(part.columns) * SCALE**2 / part.shrink**2
            assert len(part.slices) * fine <= voxels / 2 * 1.2


def test_a_page_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 voxels"):
        plan_excerpts(SIZE, SCALE, 0, FOCUS)


@pytest.mark.parametrize("voxels", [5000, 100_000, 10**7])
def test_values_stay_at_their_place_in_millimetres(voxels: int) -> None:
    fine_affine = enlarged_affine(AFFINE, SCALE)
    fine_size = (SIZE[0] * SCALE, SIZE[1] * SCALE, SIZE[2])
    volumes = {"low": ramp(AFFINE, SIZE), "fine": ramp(fine_affine, fine_size)}
    layers = [Layer("low", 1, AFFINE), Layer("fine", SCALE, fine_affine)]
    asked: list[Sequence[int]] = []

    def read(indices: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        asked.append(indices)
        for index in indices:
            yield {name: volume[index] for name, volume in volumes.items()}

    excerpts = plan_excerpts(SIZE, SCALE, voxels, FOCUS)
    parts = collect(excerpts, layers, read)
    assert len(asked) == 1
    for excerpt, part in zip(excerpts, parts, strict=True):
        for layer in layers:
            affine = excerpt.affine(layer.affine, layer.scale, SCALE)
            found = part[layer.name]
            slices, rows, columns = found.shape
            expected = ramp(affine, (columns, rows, slices))
            np.testing.assert_allclose(found, expected, atol=0.51)  # rounded to whole numbers
        centres = list(slice_centres(excerpt, AFFINE))
        assert len(centres) == len(excerpt.slices)
        row, column = np.mean(excerpt.rows), np.mean(excerpt.columns)
        mm = AFFINE @ [column, row, excerpt.slices[-1], 1]
        np.testing.assert_allclose(centres[-1], mm[:3])


def test_coarse_volume_is_not_made_coarser_than_due() -> None:
    part = Excerpt("overview", range(1), range(8), range(8), shrink=4)
    image = np.arange(64.0).reshape(8, 8)
    np.testing.assert_array_equal(part.cut(image, 1, 8), image)
    np.testing.assert_array_equal(part.cut(image, 1, 4), image)
    assert part.cut(image, 1, 2).shape == (4, 4)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([-1024.4, 3071.6], np.int16),
        ([0.0, 60000.0], np.uint16),
        ([-5.0, 60000.0], np.float32),
        ([-0.5, 0.25], np.float32),
        ([False, True], np.int16),
        ([0, 3], np.int16),
    ],
)
def test_stored_types(values: list[float], kind: type) -> None:
    stored = compact(np.array(values))
    assert stored.dtype == kind
    np.testing.assert_allclose(stored, np.array(values, float), atol=0.5)


def test_slices_of_a_volume_share_a_type() -> None:
    # Alone the first would be kept as fractions, the second as int16, the third as uint16.
    values = [np.full((2, 2), 0.25), np.full((2, 2), -900.4), np.full((2, 2), 30000.0)]
    excerpts = plan_excerpts((2, 2, 3), 1, 100, (0, 0, 0))
    (part,) = collect(excerpts, [Layer("one", 1, AFFINE)], lambda _: ({"one": v} for v in values))
    assert part["one"].dtype == np.int16
    assert part["one"][:, 0, 0].tolist() == [0, -900, 30000]


def test_packed_volume_is_a_nifti_file() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    packed = nifti_gz(array, AFFINE)
    assert packed == nifti_gz(array, AFFINE)
    image = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), array)
    np.testing.assert_allclose(image.affine, AFFINE)


def test_planes() -> None:
    assert plane_of(np.eye(4)) == "axial"
    assert plane_of(np.diag([1.0, 1.0, -2.0, 1.0])) == "axial"
    assert plane_of(np.eye(4)[[0, 2, 1, 3]]) == "coronal"
    assert plane_of(np.eye(4)[[2, 0, 1, 3]]) == "sagittal"
