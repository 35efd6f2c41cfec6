"""What the scanners show: determinism, CT numbers, and the same anatomy in both."""

from __future__ import annotations

import numpy as np
import pytest

from data.phantom.anatomy.disease import DISEASES
from data.phantom.anatomy.patient import Anatomy
from data.phantom.anatomy.tissues import BLOOD, CORTICAL_BONE, SPONGY_BONE
from data.phantom.render import (
    clinical_centre,
    ras_affine,
    render_clinical,
    render_lung_mask,
    render_micro,
    voxel_averages,
    voxel_centres,
)
from data.phantom.scanners import ClinicalScanner, MicroScanner
from data.truth_case import LABELS
from data.volumes.volume import Volume
from util.errors import UserError

WHOLE = (256, 224, 1)


@pytest.fixture(scope="module")
def chest() -> Volume:
    return render_clinical(21, WHOLE, ClinicalScanner(profile=0))  # half of the work


@pytest.fixture(scope="module")
def lung() -> np.ndarray:
    return render_lung_mask(21, WHOLE).array.astype(bool)


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_lung() -> None:
    size = (24, 24, 3)
    for render in (render_micro, render_clinical):
        first, again, other = (render(seed, size) for seed in (5, 5, 6))
        assert first.array.tobytes() == again.array.tobytes()
        np.testing.assert_array_equal(first.affine, again.affine)
        assert not np.array_equal(first.array, other.array)


def test_volumes_have_the_stated_type_size_spacing_and_place() -> None:
    micro = render_micro(1, (20, 12, 4), MicroScanner(voxel=0.125))
    assert micro.array.dtype == np.uint16
    assert micro.size == (20, 12, 4)
    assert micro.spacing == pytest.approx((0.125, 0.125, 0.125))
    clinical = render_clinical(1, (16, 12, 2), centre=(10.0, -4.0, 6.0))
    assert clinical.array.dtype == np.int16
    assert clinical.spacing == pytest.approx((0.5, 0.5, 0.5))
    # Middle of the volume, turned from (left, back, up) to RAS+.
    middle = clinical.affine @ np.array([7.5, 5.5, 0.5, 1.0])
    np.testing.assert_allclose(middle[:3], (-10, 4, 6), atol=1e-9)
    assert micro.name == "phantom_micro_seed1"


def test_affine_puts_voxel_centres_half_a_voxel_inside_the_corner() -> None:
    affine = ras_affine(np.array([1.0, 2.0, 3.0]), (0.5, 0.5, 1.0))
    np.testing.assert_allclose(affine @ (0, 0, 0, 1), (-1.25, -2.25, 3.5, 1))


QUIET = ClinicalScanner(profile=0, kernel="none", noise=0)


def test_clinical_is_the_average_of_micro() -> None:
    """The same 8 x 8 x 2 mm of lung in both scanners without blur, noise and rings: voxel by voxel,
    all of them and those with a share of vessel."""
    anatomy = Anatomy(2)
    centre = (-22.0, 14.0, anatomy.level)
    micro = MicroScanner(psf_fwhm=0, noise=0, ring=0)
    fine = render_micro(2, (128, 128, 32), micro, centre).array.astype(float)
    fine = (fine - micro.air) / (micro.water - micro.air) * 1000 - 1000
    averaged = fine.reshape(4, 8, 16, 8, 16, 8).mean(axis=(1, 3, 5))
    difference = render_clinical(2, (16, 16, 4), QUIET, centre).array - averaged
    assert averaged.std() > 40  # vessels and airways: there is something to agree on
    assert abs(difference.mean()) < 1
    assert difference.std() < 1
    corner = np.array(centre) - (4, 4, 1)
    z, y, x = voxel_centres(corner, micro.spacing, (128, 128, 32))
    labels = anatomy.labels(anatomy.tubes(corner, corner + np.array([8, 8, 2])), z, y, x)
    share = (labels == LABELS["vessel"]).reshape(4, 8, 16, 8, 16, 8).mean(axis=(1, 3, 5))
    part = (share > 0.02) & (share < 0.2)
    assert part.sum() > 50
    assert abs(difference[part].mean()) < 2


def test_pixels_that_do_not_fit_see_the_same_tissue() -> None:
    """Of 0.7 mm instead of 0.5: other samples of the same tissue, the same means."""
    corner = np.array([-26.0, 10.5, Anatomy(2).level])
    anatomy = Anatomy(2)
    fine = voxel_averages(anatomy, corner, (0.0625, 0.0625, 0.0625), (112, 112, 16))
    coarse = voxel_averages(anatomy, corner, (0.7, 0.7, 1.0), (10, 10, 1))
    finer = voxel_averages(anatomy, corner, (0.04375, 0.04375, 0.0625), (160, 160, 16))
    mean = finer.reshape(1, 16, 10, 16, 10, 16).mean(axis=(1, 3, 5))
    assert abs(coarse.mean() - fine.mean()) < 1
    assert abs((coarse - mean).mean()) < 1
    assert (coarse - mean).std() < 4


def test_clinical_noise_and_blur_stay_near_the_average() -> None:
    anatomy = Anatomy(2)
    centre = (-22.0, 14.0, anatomy.level)
    scanner = ClinicalScanner()
    seen = render_clinical(2, (16, 16, 2), scanner, centre).array
    corner = np.array(centre) - np.array([16, 16, 2]) * np.array(scanner.spacing) / 2
    truth = voxel_averages(anatomy, corner, scanner.spacing, (16, 16, 2))
    assert abs(seen.mean() - truth.mean()) < 12


def test_lung_is_as_dense_as_inflated_lung(chest: Volume, lung: np.ndarray) -> None:
    assert -900 < chest.array[lung].mean() < -780
    assert -900 < np.median(chest.array[lung]) < -800
    # Texture beyond the noise, as vessels down to the resolution and lobules give it.
    assert chest.array[lung & (chest.array < -700)].std() > 20


def test_mask_agrees_with_the_ct(chest: Volume, lung: np.ndarray) -> None:
    assert 0.3 < lung.mean() < 0.5
    assert np.mean(chest.array[lung] < -400) > 0.93
    body = ~lung & (chest.array > -500)
    assert np.mean(chest.array[body] > -200) > 0.95
    # No lung-like tissue outside the mask but for the blurred surfaces.
    assert np.mean((chest.array[~lung] > -920) & (chest.array[~lung] < -700)) < 0.02


def test_a_patch_of_16_mm_fits_in_the_lung_at_many_places(lung: np.ndarray) -> None:
    total = np.pad(lung[0].astype(int).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[32:, 32:] - total[:-32, 32:] - total[32:, :-32] + total[:-32, :-32]
    assert np.count_nonzero(inside == 32 * 32) > 5000


@pytest.mark.slow
def test_chest_wall_heart_ribs_and_outside(chest: Volume, lung: np.ndarray) -> None:
    centre = clinical_centre(Anatomy(21))

    def region(x: float, y: float, half: int = 6) -> np.ndarray:
        column, row = round((x - centre[0]) / 0.5 + 128), round((y - centre[1]) / 0.5 + 112)
        return chest.array[0, row - half : row + half, column - half : column + half]

    assert region(55, -14).mean() == pytest.approx(BLOOD, abs=6)  # heart
    body = chest.array[~lung]
    assert np.median(body[(body > -60) & (body < 150)]) == pytest.approx(45, abs=20)
    assert np.mean((body > -140) & (body < -60)) > 0.08  # fat
    assert np.mean(body > 200) > 0.02  # ribs and vertebra
    assert body.max() > 500
    assert chest.array[0, :8, :8].mean() < -980  # outside air


def test_ribs_are_spongy_inside_and_dense_outside() -> None:
    anatomy = Anatomy(21)
    axis = np.arange(-62, -30, 0.25)
    tubes = anatomy.tubes(np.full(3, -70.0), np.full(3, -60.0))
    z = np.array([anatomy.level])
    values = anatomy.hounsfield(tubes, z, np.arange(-20, 20, 0.25), axis)
    bone = values[values > 100]
    assert set(np.unique(bone)) == {np.float32(SPONGY_BONE), np.float32(CORTICAL_BONE)}


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("solid", -60, 60), ("ground_glass", -650, -350)]
)
def test_the_nodule_has_its_density_in_the_clinical_volume(
    kind: str, low: float, high: float
) -> None:
    disease = DISEASES[f"{kind}_nodule"]
    anatomy = Anatomy(21, disease)
    assert anatomy.nodule is not None
    x, y, z = anatomy.nodule.centre
    values = render_clinical(21, (40, 40, 1), centre=(x, y, z), disease=disease).array[0]
    assert low < values[17:23, 17:23].mean() < high
    edge = np.concatenate([values[:3].ravel(), values[-3:].ravel()])
    assert np.median(edge) < -750


def test_processes_change_nothing() -> None:
    corner = np.array([-30.0, 2.0, -12.0])
    spacing, size = (0.25, 0.25, 0.5), (12, 70, 2)
    anatomy = Anatomy(5, DISEASES["emphysema"])
    alone = voxel_averages(anatomy, corner, spacing, size)
    np.testing.assert_array_equal(voxel_averages(anatomy, corner, spacing, size, 2), alone)


def test_micro_shows_septa_vessels_and_airway() -> None:
    volume = render_micro(31, (160, 160, 1))
    share = (volume.array.astype(float) - 2500) / 6500
    assert np.mean(share > 0.9) > 0.01  # vessels
    assert np.mean(np.abs(share) < 0.1) > 0.3  # air and noise
    assert np.mean((share > 0.1) & (share < 0.6)) > 0.25  # septa by partial volume
    assert volume.array.min() > 0
    assert volume.array.max() < 15000


@pytest.mark.parametrize("size", [(0, 8, 8), (8, -1, 8), (100000, 100000, 8)])
def test_impossible_sizes_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="phantom size"):
        render_clinical(1, size)
    with pytest.raises(UserError, match="phantom size"):
        render_micro(1, size)
