"""The anatomy: what lies where, in CT numbers, before any scanner."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from data.phantom.anatomy.chest import fissure_distance, lung_depth, outline
from data.phantom.anatomy.disease import DISEASES
from data.phantom.anatomy.patient import Anatomy
from data.phantom.anatomy.tissues import SOLID_NODULE
from data.phantom.anatomy.tree import tube_distance
from data.phantom.anatomy.vessels import DUCT_RADIUS, IN_SEPTA
from data.truth_case import LABELS
from util.errors import UserError

SEEDS = (1, 2, 21)


@lru_cache(maxsize=8)
def patient(seed: int) -> Anatomy:
    return Anatomy(seed)


def look(anatomy: Anatomy, centre: np.ndarray, half: float, step: float) -> np.ndarray:
    """HU of a small cube, (z, y, x)."""
    axes = [np.arange(c - half, c + half, step) for c in centre]
    low, high = centre - half, centre + half
    return anatomy.hounsfield(anatomy.tubes(low, high), axes[2], axes[1], axes[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_nodule_is_solid_and_wholly_in_the_lung(seed: int) -> None:
    anatomy = Anatomy(seed, DISEASES["solid_nodule"])
    assert anatomy.nodule is not None
    centre, radius = anatomy.nodule.centre, anatomy.nodule.radius
    assert abs(centre[2] - anatomy.level) <= 1
    assert lung_depth(anatomy.chest, *centre[:, None])[0] < -radius - 1
    values = look(anatomy, centre, 0.5 * radius, 0.5)
    assert np.median(values) == pytest.approx(SOLID_NODULE, abs=1)
    assert patient(seed).nodule is None


@pytest.mark.parametrize("seed", SEEDS)
def test_outline_is_a_lung_wide_enough_for_patches(seed: int) -> None:
    chest = patient(seed).chest
    angle = np.linspace(-np.pi, np.pi, 721)
    radius = outline(chest, angle)
    assert radius.min() > 22
    assert radius.max() < 56
    assert np.abs(np.diff(radius)).max() < 0.6  # no step, and closed where the angle wraps
    assert radius[0] == pytest.approx(radius[-1])
    # The mediastinum pushes in on the medial side only.
    assert radius[np.abs(angle) < 0.5].min() < 0.85 * radius[np.abs(angle) > 2.6].min()


def test_depth_is_about_a_distance() -> None:
    chest = patient(1).chest
    for angle in np.linspace(1.2, 5.0, 9):
        edge = float(outline(chest, np.array((angle + np.pi) % (2 * np.pi) - np.pi)))
        place = np.array([[(edge - 5) * np.cos(angle)], [(edge - 5) * np.sin(angle)], [0.0]])
        assert lung_depth(chest, *place)[0] == pytest.approx(-5, abs=1e-6)


def test_parenchyma_between_vessels_is_mostly_air() -> None:
    anatomy = patient(1)
    values = look(anatomy, np.array([-28.0, -12.0, anatomy.level]), 3.0, 0.0625)
    assert -920 < values.mean() < -780
    # Air and thin walls: most samples are one or the other, few solid.
    assert np.mean(values < -990) > 0.4
    assert np.mean(values > -100) < 0.1


@pytest.mark.slow
def test_airways_have_air_inside_and_wall_around() -> None:
    anatomy = patient(1)
    radii = anatomy.vessels.airway_radii
    tubes = anatomy.vessels.main_lumen
    chosen = np.flatnonzero(
        (np.abs(tubes.ends[:, 2] - anatomy.level) < 25)
        & (tubes.end_radii > 1.0)
        & (tubes.end_radii < 1.6)
    )[:12]
    assert len(chosen) > 3
    assert radii.min() < 0.5 < 2.5 < radii.max()
    for number in chosen:
        middle = (tubes.starts[number] + tubes.ends[number]) / 2
        values = look(anatomy, middle, 3.0, 0.125)
        centre = values.shape[0] // 2
        inner = values[centre - 2 : centre + 3, centre - 2 : centre + 3, centre - 2 : centre + 3]
        assert inner.max() < -950
        assert np.mean((values > -30) & (values < 60)) > 0.02


def test_an_artery_touches_every_airways_wall() -> None:
    """Bronchovascular bundles: wherever there is an airway, large or small, a vessel is at it."""
    anatomy = patient(1)
    walls = anatomy.tubes(np.array([-36.0, -12, -8]), np.array([-24.0, 0, 4]))
    assert len(walls.airway.starts) > 20
    middle = (walls.airway.starts + walls.airway.ends) / 2
    radius = (walls.airway.start_radii + walls.airway.end_radii) / 2
    gaps = [
        tube_distance(walls.vessels, place[[2]], place[[1]], place[[0]], 3.0) - outer
        for place, outer in zip(middle, radius, strict=True)
    ]
    assert np.quantile(gaps, 0.9) < 0.05


def test_ducts_are_as_wide_as_measured_and_fill_a_third_of_the_lung() -> None:
    anatomy = patient(1)
    corner = np.array([-36.0, -22, anatomy.level])
    tubes = anatomy.tubes(corner, corner + 4)
    low, high = DUCT_RADIUS
    assert 2 * low >= 0.3
    assert 2 * high <= 0.5
    assert np.all((tubes.ducts.start_radii >= low) & (tubes.ducts.start_radii <= high))
    axis = np.arange(0, 4, 0.125)
    x, y, z = (start + axis for start in corner)
    inside = tube_distance(tubes.ducts, z, y, x, 0.1) < 0
    assert 0.2 < inside.mean() < 0.45


def test_small_vessels_run_in_septa() -> None:
    anatomy = patient(1)
    corner = np.array([-36.0, -22, anatomy.level])
    tubes = anatomy.tubes(corner, corner + 6)
    small = tubes.vessels.select(tubes.vessels.start_radii < IN_SEPTA)
    assert len(small.starts) > 500
    inside = np.all((small.ends > corner) & (small.ends < corner + 6), axis=1)
    offset = anatomy.foam.wall_offset(small.ends[inside])
    assert np.quantile(np.linalg.norm(offset, axis=1), 0.9) < 0.03


def test_vessels_of_a_specimen_may_be_collapsed_or_hold_air() -> None:
    corner = np.array([-36.0, -22, -8.0])
    living, excised = (Anatomy(1, specimen=one).tubes(corner, corner + 12) for one in (False, True))
    assert len(living.emptied.starts) == 0
    assert len(excised.emptied.starts) > 0
    assert np.all(excised.emptied.start_radii > 0)
    assert len(excised.vessels.starts) == pytest.approx(len(living.vessels.starts), rel=0.05)
    assert excised.vessels.start_radii.sum() < 0.95 * living.vessels.start_radii.sum()


def test_vessels_reach_the_periphery_but_not_the_pleura_and_taper_to_tenths_of_mm() -> None:
    anatomy = patient(2)
    low, high = np.array([-50.0, -10, anatomy.level - 1]), np.array([10.0, 0, anatomy.level + 1])
    tubes = anatomy.tubes(low, high).vessels
    assert tubes.end_radii.min() < 0.12
    assert tubes.end_radii.max() > 1.0
    small = tubes.select(tubes.end_radii < 0.3)
    depth = lung_depth(anatomy.chest, *small.ends.T)
    assert depth.max() < 0
    assert np.mean((depth > -5) & (depth < -0.5)) > 0.02


def test_small_branches_do_not_cross_the_fissure() -> None:
    anatomy = patient(1)
    low, high = np.full(3, -8.0), np.full(3, 8.0)
    tubes = anatomy.tubes(low, high).vessels
    small = tubes.select(tubes.start_radii < 0.25)
    before = fissure_distance(anatomy.chest, *small.starts.T)
    after = fissure_distance(anatomy.chest, *small.ends.T)
    # Bending afterwards may shift a branch by some tenths of a millimetre.
    assert np.mean((before * after < 0) & (np.minimum(abs(before), abs(after)) > 0.6)) == 0


@pytest.mark.slow
def test_region_and_its_parts_agree() -> None:
    anatomy = patient(1)
    axis = np.arange(0, 4, 0.125)
    z, y, x = axis + anatomy.level, axis - 20, axis - 25
    wide = anatomy.tubes(np.array([-32.0, -27, -18]), np.array([-14.0, -9, 0]))
    close = anatomy.tubes(np.array([x[0], y[0], z[0]]), np.array([x[-1], y[-1], z[-1]]))
    whole = anatomy.hounsfield(wide, z, y, x)
    part = anatomy.hounsfield(close, z[8:16], y[4:20], x[16:])
    np.testing.assert_allclose(part, whole[8:16, 4:20, 16:], atol=3)


@pytest.mark.slow
def test_fissure_is_a_thin_bright_sheet() -> None:
    anatomy = patient(1)
    y = np.linspace(-40, 40, 16001)
    distance = fissure_distance(anatomy.chest, np.zeros(1), y, np.full(1, anatomy.level))
    on_sheet = y[np.argmin(np.abs(distance))]
    axis = np.arange(-0.4, 0.4, 0.02)
    z = np.array([anatomy.level])
    place = np.array([0.0, on_sheet, anatomy.level])
    tubes = anatomy.tubes(place - 1, place + 1)
    values = anatomy.hounsfield(tubes, z, on_sheet + axis, np.zeros(1))[0, :, 0]
    assert values.max() > 0
    assert np.count_nonzero(values > -200) * 0.02 < 0.5


def test_micro_specimen_lies_in_lung_with_airway_and_vessels() -> None:
    extent = np.array([32.0, 32.0, 1.0])
    for seed in (11, 12, 31):
        anatomy = patient(seed)
        centre = anatomy.micro_centre(extent)
        axes = [c + np.linspace(-e / 2, e / 2, 9) for c, e in zip(centre, extent, strict=True)]
        assert anatomy.depth(axes[2], axes[1], axes[0]).max() < -1
        tubes = anatomy.tubes(centre - extent / 2, centre + extent / 2)
        assert 0.6 < tubes.lumen.end_radii.max() < 2.0
        assert len(tubes.vessels.starts) > 200


def test_a_specimen_larger_than_the_lung_is_refused() -> None:
    with pytest.raises(UserError, match=r"120 x 120 x 1 mm does not fit .*32 x 32 x 1 mm fits"):
        patient(1).micro_centre(np.array([120.0, 120.0, 1.0]))


def test_labels_say_what_the_values_show() -> None:
    disease = DISEASES["solid_nodule"]
    anatomy = Anatomy(21, disease)
    assert anatomy.nodule is not None
    axes = [np.arange(c - 9, c + 9, 0.125) for c in anatomy.nodule.centre[:2]]
    z = np.array([anatomy.nodule.centre[2]])
    low, high = anatomy.nodule.centre - 9, anatomy.nodule.centre + 9
    tubes = anatomy.tubes(low, high)
    labels = anatomy.labels(tubes, z, axes[1], axes[0])
    values = anatomy.hounsfield(tubes, z, axes[1], axes[0])
    assert labels.shape == values.shape
    assert set(np.unique(labels)) >= {LABELS[name] for name in ("parenchyma", "vessel", "nodule")}
    assert values[labels == LABELS["nodule"]].mean() == pytest.approx(SOLID_NODULE, abs=15)
    assert np.median(values[labels == LABELS["vessel"]]) > 0
    assert values[labels == LABELS["parenchyma"]].mean() < -800


def test_labels_of_airways_and_septa() -> None:
    anatomy = patient(1)
    y = np.linspace(-40, 40, 16001)
    distance = fissure_distance(anatomy.chest, np.full(1, -20.0), y, np.full(1, anatomy.level))
    on_sheet = float(y[np.argmin(np.abs(distance))])
    place = np.array([-20.0, on_sheet, anatomy.level])
    x, y, z = (start + np.arange(-5, 5, 0.1) for start in place)
    z = place[[2]]
    tubes = anatomy.tubes(place - 5, place + 5)
    labels, values = anatomy.labels(tubes, z, y, x), anatomy.hounsfield(tubes, z, y, x)
    assert values[labels == LABELS["septum"]].mean() > -350  # thinner than a sample's blur
    assert 0.005 < np.mean(labels == LABELS["septum"]) < 0.1
    walls = anatomy.vessels.main_lumen
    place = walls.ends[np.argmin(np.abs(walls.end_radii - 1.0))]
    x, y, z = (start + np.arange(-3, 3, 0.1) for start in place)
    tubes = anatomy.tubes(place - 3, place + 3)
    labels, values = (
        anatomy.labels(tubes, z[30:31], y, x),
        anatomy.hounsfield(tubes, z[30:31], y, x),
    )
    assert values[labels == LABELS["lumen"]].mean() < -900
    assert values[labels == LABELS["airway"]].mean() > -200


def test_airways_and_vessels_begin_and_end_where_the_docs_say() -> None:
    """Diameters, and the law of the radii at every fork of the main trees."""
    vessels = patient(1).vessels
    assert 2 * vessels.main_lumen.start_radii.max() == pytest.approx(5.4, abs=0.3)
    assert 2 * vessels.main_vessels.start_radii.max() == pytest.approx(3.5, abs=0.3)
    place = np.array([-36.0, -22, -10])
    tubes = vessels.region(place, place + 6)
    assert 2 * tubes.lumen.end_radii.min() == pytest.approx(0.4, abs=0.05)
    assert 2 * tubes.vessels.end_radii.min() == pytest.approx(0.09, abs=0.01)
    tree, radii = vessels.airway_tree, vessels.airway_radii
    children = np.zeros(len(radii))
    np.add.at(children, tree.parents[1:], radii[1:] ** 3)
    forks = children > 0
    np.testing.assert_allclose(children[forks], radii[forks] ** 3, rtol=1e-9)
