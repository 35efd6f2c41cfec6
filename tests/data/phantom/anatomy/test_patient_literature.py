"""The phantom's lung against what has been measured in lungs.

- Health: mean linear intercept of 0.2 to 0.3 mm (Weibel 1963, Thurlbeck 1967) and septa of some
  10 um (Gehr et al. 1978).
- Emphysema: the intercept grows to 0.5 mm and more (Thurlbeck, Am. Rev. Respir. Dis. 95 (1967)
  765-773); CT numbers below -950 HU (Gevenois et al., Am. J. Respir. Crit. Care Med. 152 (1995)
  653-657).
- Fibrosis: alveolar walls several times thicker; mean lung attenuation above -800 HU (Best et al.,
  Radiology 228 (2003) 407-414).
- Clinical CT: mean, contrast and power of calm parenchyma are those of LIDC-IDRI scans
  (`benchmarks/phantom_texture.py`), seen by a scanner of their voxel size and noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.phantom_texture import SCANS, Calm, calm_phantom, calm_scan, mean_of
from data.phantom.anatomy.disease import HEALTHY, Disease, LobuleDisease
from data.phantom.anatomy.foam import BLEND, Foam
from data.phantom.anatomy.lattice import Lattice
from data.phantom.anatomy.patient import Anatomy
from data.phantom.anatomy.tissues import AIR, SEPTUM
from data.phantom.anatomy.tree import tube_distance

LOBULES = Lattice(1, 31, 11.0, 0.5)
STEP = 0.004  # mm along a test line


def lines(foam: Foam, centre: np.ndarray, ducts: Anatomy | None = None) -> np.ndarray:
    """Tissue along lines of 3 mm around a place, (lines, samples); cut by an anatomy's ducts."""
    across, along = np.arange(-1.2, 1.2, 0.3), np.arange(-1.5, 1.5, STEP)
    z, y, x = centre[2] + across, centre[1] + across, centre[0] + along
    duct = None
    if ducts is not None:
        tubes = ducts.tubes(centre - 1.5, centre + 1.5)
        duct = tube_distance(tubes.ducts, z, y, x, 0.1)
    return foam.tissue_fraction(z, y, x, duct=duct).reshape(-1, len(along))


def intercept(tissue: np.ndarray, least: float = 0.0) -> float:
    """Mean linear intercept in mm: length of the lines over the walls that they meet, of which a
    sample holds more than the share `least`."""
    hit = tissue > least
    return float(tissue.size * STEP / np.count_nonzero(hit[:, 1:] & ~hit[:, :-1]))


def thickness(tissue: np.ndarray) -> float:
    """Mean thickness in mm of the walls that lines meet.

    In its middle a wall thinner than BLEND fills its thickness over BLEND, however it is tilted.
    """
    return BLEND * float(np.mean(peaks(tissue)))


def peaks(tissue: np.ndarray) -> np.ndarray:
    """The largest share of tissue in each wall that lines meet."""
    padded = np.pad(tissue, ((0, 0), (1, 1))).ravel()
    change = np.diff((padded > 0).astype(int))
    starts, ends = np.flatnonzero(change == 1) + 1, np.flatnonzero(change == -1) + 1
    return np.array([padded[a:b].max() for a, b in zip(starts, ends, strict=True)])


def a_lobule() -> np.ndarray:
    """Centre in mm of the lobule at the origin."""
    cell = np.zeros((1, 3), np.int64)
    return LOBULES.to_mm(LOBULES.places(cell).astype(np.float64))[0]


PLACES = [np.array(place) for place in ((-30.0, -15, -8), (-25.0, 10, 4), (-38.0, 4, -12))]


@pytest.mark.parametrize("seed", [1, 11])
def test_health_has_the_intercept_and_septa_of_health(seed: int) -> None:
    anatomy = Anatomy(seed)
    tissue = np.concatenate([lines(anatomy.foam, place, anatomy) for place in PLACES])
    assert 0.2 < intercept(tissue) < 0.3
    assert 0.05 < tissue.mean() < 0.15
    # Without ducts: the free edges around them are entrance rings, thicker than septa.
    septa = np.concatenate([lines(anatomy.foam, place) for place in PLACES])
    assert 0.008 < thickness(septa) < 0.016


def test_emphysema_enlarges_airspaces_in_the_middle_of_lobules_only() -> None:
    ill = LobuleDisease(1, Disease(emphysema=1.0))
    middle, edge = a_lobule(), a_lobule() + 0.5 * LOBULES.to_mm(np.array([1.0, 0, 0]))
    foam = Foam(1, LOBULES, ill=ill)
    inside = lines(foam, middle)
    assert intercept(inside) > 0.6
    assert AIR + inside.mean() * (SEPTUM - AIR) < -950
    # Walls that remain are those of health.
    assert 0.008 < thickness(inside) < 0.016
    unlike = lines(foam, edge) != lines(Foam(1, LOBULES), edge)
    assert unlike.mean() < 0.05


def test_fibrosis_thickens_septa_and_leaves_airspaces() -> None:
    ill = LobuleDisease(1, Disease(fibrosis=1.0))
    healthy, tissue = (
        np.concatenate([lines(Foam(1, LOBULES, ill=one), place) for place in PLACES])
        for one in (LobuleDisease(1, HEALTHY), ill)
    )
    assert thickness(tissue) > 2.5 * thickness(healthy)
    # Thick walls are as wide as thin ones where each is half as dense as in its middle.
    half = [0.5 * float(np.median(peaks(one))) for one in (healthy, tissue)]
    assert intercept(tissue, half[1]) == pytest.approx(intercept(healthy, half[0]), rel=0.15)
    assert -800 < AIR + tissue.mean() * (SEPTUM - AIR) < -500


def test_fibrosis_begins_under_the_pleura() -> None:
    ill = LobuleDisease(3, Disease(fibrosis=0.8), lambda points: (points[:, 0] > 0).astype(float))
    cells = np.stack(np.meshgrid(*[np.arange(-6, 6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    found = ill.fibrotic(cells, cells.astype(float))
    assert not found[cells[:, 0] <= 0].any()
    assert found[cells[:, 0] > 0].mean() == pytest.approx(0.8, abs=0.05)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", SCANS)
def test_calm_parenchyma_has_the_contrast_and_the_power_of_real_scans(
    name: str, shared_data: Path
) -> None:
    folder = shared_data / "clinical"
    real, scanner = calm_scan(
        folder / f"{name}_lungbox.nii.gz", folder / f"{name}_lungbox_mask.nii.gz"
    )
    phantom: Calm = mean_of([calm_phantom(seed, scanner) for seed in (1, 2)])
    assert phantom.mean == pytest.approx(real.mean, abs=25)
    assert phantom.lung == pytest.approx(real.lung, abs=25)
    assert phantom.deviation == pytest.approx(real.deviation, rel=0.25)
    ratio = np.array(phantom.power) / np.array(real.power)
    assert np.all((ratio > 1 / 1.5) & (ratio < 1.5)), ratio
