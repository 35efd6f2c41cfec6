from __future__ import annotations

import numpy as np
import pytest
import torch

from data.patches import shrink
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW
from methods.restoration.shrunk_slices import (
    RestorationSettings,
    low_mask,
    restoration_job,
    restore_slices,
    shrink_slices,
    statistics_job,
)
from models.inference.case_enlarger import CaseEnlarger
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator, initialise

SCALE = 4
LUNG = RestorationSettings("area", lung_statistics=True)


def volume(size: tuple[int, int, int] = (22, 18, 3)) -> Volume:
    x, y, z = size
    array = np.random.default_rng(0).integers(-1200, 700, (z, y, x)).astype(np.int16)
    return Volume(array, np.eye(4), "memory")


def lung(shape: tuple[int, int, int] = (3, 18, 22)) -> np.ndarray:
    """Lung in slices 0 and 2."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[::2, 5:12, 6:15] = 1
    return mask


def test_slices_are_shrunk_one_after_the_other_on_the_networks_scale() -> None:
    truth, mask = volume(), lung()
    items = list(shrink_slices(truth, mask, CLINICAL_WINDOW, "area", SCALE))
    assert [item.index for item in items] == [0, 1, 2]
    for item in items:
        np.testing.assert_array_equal(item.physical, truth.read_slice(item.index))
        np.testing.assert_array_equal(item.high, CLINICAL_WINDOW.to_unit(item.physical))
        assert np.abs(item.high).max() <= 1
        assert item.low.shape == (5, 6)  # 18 and 22 filled up to 20 and 24
        padded = np.pad(item.high, ((0, 2), (0, 2)), mode="edge")
        np.testing.assert_array_equal(item.low, shrink(padded, SCALE, "area"))
        assert item.section is not None
        np.testing.assert_array_equal(item.section, mask[item.index])
    (first, *_) = shrink_slices(truth, None, CLINICAL_WINDOW, "area", SCALE)
    assert first.section is None


def test_the_published_zoom_overshoots_and_is_clipped() -> None:
    array = np.full((1, 16, 16), -1000, dtype=np.int16)
    array[:, 6:] = 500
    (item,) = shrink_slices(
        Volume(array, np.eye(4), "memory"), None, CLINICAL_WINDOW, "zoom", SCALE
    )
    assert item.low.min() >= -1
    assert item.low.max() <= 1


def test_a_block_with_any_lung_is_lung_on_the_shrunk_grid() -> None:
    mask = np.zeros((10, 9), dtype=np.uint8)
    mask[3, 8] = 255
    found = low_mask(mask, SCALE)
    assert found is not None
    expected = np.zeros((3, 3), dtype=bool)
    expected[0, 2] = True
    np.testing.assert_array_equal(found, expected)
    assert low_mask(np.zeros((10, 9), dtype=np.uint8), SCALE) is None


@pytest.mark.parametrize("settings", [LUNG, RestorationSettings("area")])
def test_what_the_network_is_to_do(settings: RestorationSettings) -> None:
    """Every slice is restored; statistics from lung are gathered where there is lung."""
    items = list(shrink_slices(volume(), lung(), CLINICAL_WINDOW, "area", SCALE))
    for item in items:
        job = restoration_job(item, settings, SCALE)
        assert job.image is item.low
        assert job.needed is None
        assert (job.scope is not None) == (settings.lung_statistics and item.index != 1)
    gathered = [statistics_job(item, settings, SCALE) is not None for item in items]
    assert gathered == [True, not settings.lung_statistics, True]


def test_pooled_lung_statistics_do_not_see_slices_without_lung() -> None:
    """Whatever a slice without lung shows, the others come out the same."""
    torch.manual_seed(0)
    generator = SRGenerator(2, ngf=4, blocks=1)
    initialise(generator)
    enlarger = CaseEnlarger(SuperResolver(generator.eval(), torch.device("cpu")))
    settings = RestorationSettings("area", lung_statistics=True, volume_statistics=True)
    results = []
    for value in (-900, 400):
        array = volume().array.copy()
        array[1] = value
        items = list(
            shrink_slices(
                Volume(array, np.eye(4), "memory"), lung(), CLINICAL_WINDOW, "area", SCALE
            )
        )

        def jobs(items: list = items) -> list:
            return [statistics_job(item, settings, SCALE) for item in items]

        enlarger.gather(jobs)
        restored = list(restore_slices(items, enlarger, settings, SCALE))
        assert [item.index for item, _ in restored] == [0, 1, 2]
        results.append([enlarged.unit for _, enlarged in restored])
    for index in (0, 2):
        np.testing.assert_array_equal(results[0][index], results[1][index])
    assert not np.array_equal(results[0][1], results[1][1])
