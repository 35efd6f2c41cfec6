"""What a volume looks like that is no CT in HU."""

from __future__ import annotations

import numpy as np
import pytest

from data.lung_mask import compute_lung_mask
from data.volumes.appearance import appearance, holds_labels
from data.volumes.volume import Volume
from util.errors import UserError


def body() -> np.ndarray:
    """HU (3, 60, 80): a body with two lungs in air."""
    rows, columns = np.mgrid[:60, :80]
    values = np.full((60, 80), -1000.0)
    values[((rows - 30) / 26) ** 2 + ((columns - 40) / 36) ** 2 < 1] = 40
    for centre in (25, 55):
        values[((rows - 30) / 16) ** 2 + ((columns - centre) / 10) ** 2 < 1] = -850
    noise = np.random.default_rng(0).normal(0, 12, (3, 60, 80))
    return np.round(values + noise).astype(np.int16)


def with_spine() -> np.ndarray:
    """`body`, with a bone that would pass for lung where all is inverted."""
    rows, columns = np.mgrid[:60, :80]
    values = body()
    values[:, ((rows - 48) / 5) ** 2 + ((columns - 40) / 6) ** 2 < 1] += 800
    return values


def organs() -> np.ndarray:
    rows, columns = np.mgrid[:60, :80]
    return np.stack([1 + rows // 12 + 5 * (columns // 20)] * 3).astype(np.uint8)


def volume_of(values: np.ndarray) -> Volume:
    return Volume(values, np.eye(4), "scans/case7.nii.gz")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (organs(), "values from 1 to 20, like a label map"),
        (np.clip((body() + 1024) / 8, 0, 255).round(), "like 8-bit pictures, whose HU are lost"),
        (-body(), "like an inverted image (air brighter than tissue)"),
        (-with_spine(), "like an inverted image (air brighter than tissue)"),
        (3000 - body(), "like an inverted image (air brighter than tissue)"),
        (body() + 1024, "like HU with about 1024 added"),
        (body().astype(np.int32) + 32768, "like HU with about 32768 added"),
        (np.zeros((2, 9, 9)), "values from 0 to 0, like an empty image"),
    ],
)
def test_what_is_no_ct_is_told_by_its_likeness(values: np.ndarray, words: str) -> None:
    volume = volume_of(values)
    assert appearance(volume).endswith(words)
    with pytest.raises(UserError, match=r"no lung found in scans/case7\.nii\.gz") as caught:
        compute_lung_mask(volume)
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_an_inverted_image_whose_tissue_is_darker_than_air_has_no_lung() -> None:
    with pytest.raises(UserError, match="no lung found"):
        compute_lung_mask(volume_of(-1000 - with_spine()))


def test_ct_is_like_nothing_else() -> None:
    volume = volume_of(body())
    assert appearance(volume) == f"values from {body().min()} to {body().max()}"
    assert compute_lung_mask(volume).any()
    assert compute_lung_mask(volume_of(with_spine())).any()


@pytest.mark.parametrize("padding", [-3024, 3071, 32767])
def test_padding_around_a_round_field_is_not_air(padding: int) -> None:
    rows, columns = np.mgrid[:60, :80]
    values = body()
    mask = compute_lung_mask(volume_of(values))
    values[:, ((rows - 30) / 30) ** 2 + ((columns - 40) / 40) ** 2 > 1] = padding
    np.testing.assert_array_equal(compute_lung_mask(volume_of(values)), mask)
    with pytest.raises(UserError, match="like an inverted image"):
        compute_lung_mask(volume_of(-values))


def test_a_bright_table_makes_no_inverted_image() -> None:
    values = np.pad(body(), ((0, 0), (0, 14), (0, 0)), constant_values=1500)
    values[:, 60:] += np.random.default_rng(0).integers(-99, 99, (3, 14, 80)).astype(np.int16)
    assert compute_lung_mask(volume_of(values)).any()


def test_what_is_no_label_map() -> None:
    values = body()
    assert not holds_labels(np.clip((values + 1024) / 8, 0, 255).round())
    assert not holds_labels(np.clip(values, -1000, -600) + 1000)  # a window, saturated in tissue
    assert not holds_labels(np.full((3, 8, 8), 7))
    assert not holds_labels(organs().astype(np.int16) - 2)  # -1 is no label
    assert not holds_labels(organs() * 0.5)
    assert holds_labels(organs().astype(np.float32))


@pytest.mark.filterwarnings("error")
def test_slices_of_one_pixels_width_are_no_label_map() -> None:
    """None of their voxels has a neighbour."""
    assert not holds_labels(organs()[..., :1])
    assert appearance(volume_of(organs()[..., :1])).endswith(
        "like 8-bit pictures, whose HU are lost"
    )
