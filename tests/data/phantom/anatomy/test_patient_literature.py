"""The phantom's lung against what has been measured in lungs.

Health: `test_phantom_foam.py` (share of air, mean linear intercept of 0.2 to 0.3 mm, septa of some
10 um; Weibel 1963, Gehr et al. 1978, Ochs et al. 2004) and `test_phantom_render.py` (CT numbers of
inflated lung). Here: disease, and the texture of CT.

- Emphysema: mean linear intercept of human lungs grows from 0.2 to 0.3 mm in health to 0.5 mm and
  more (Thurlbeck, Am. Rev. Respir. Dis. 95 (1967) 765-773); CT numbers below -950 HU (Gevenois et
  al., Am. J. Respir. Crit. Care Med. 152 (1995) 653-657).
- Fibrosis: alveolar walls several times thicker; mean lung attenuation above -800 HU (Best et al.,
  Radiology 228 (2003) 407-414).
- CT texture: power falls with about frequency^-2 below 0.35 cycles/mm, as in LIDC-IDRI scans.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_helpers import spectrum_slope

from data.phantom.anatomy.disease import HEALTHY, Disease, LobuleDisease
from data.phantom.anatomy.foam import Foam
from data.phantom.anatomy.lattice import Lattice
from data.phantom.anatomy.tissues import AIR, SEPTUM
from data.phantom.render import render_clinical, render_lung_mask
from data.phantom.scanners import ClinicalScanner

LOBULES = Lattice(1, 31, 11.0, 0.5)
STEP = 0.004  # mm along a test line


def lines(foam: Foam, count: int = 120, centre: np.ndarray | None = None) -> np.ndarray:
    """Tissue along test lines of 4 mm, (count, samples): anywhere, or within 3 mm of a place."""
    generator = np.random.default_rng(2)
    middle = np.zeros(3) if centre is None else centre
    reach = 20.0 if centre is None else 1.5
    starts = middle + generator.uniform(-reach, reach, (count, 3)) - (2.0, 0, 0)
    along = np.arange(1000) * STEP
    rows = []
    for start in starts:
        points = np.repeat(start[:, None], len(along), axis=1)
        points[0] += along
        rows.append(foam.tissue_fraction(points))
    return np.stack(rows)


def intercept(tissue: np.ndarray) -> float:
    """Mean linear intercept in mm: length of the lines over the walls that they meet."""
    hit = tissue > 0
    return float(tissue.size * STEP / np.count_nonzero(hit[:, 1:] & ~hit[:, :-1]))


def thickness(tissue: np.ndarray) -> float:
    """Volume of tissue over area of walls, mm; the area is twice the walls met per length."""
    return float(tissue.mean() * intercept(tissue) / 2)


def a_lobule() -> np.ndarray:
    """Centre in mm of the lobule at the origin."""
    cell = np.zeros((1, 3), np.int64)
    return LOBULES.to_mm(LOBULES.places(cell).astype(np.float64))[0]


def test_health_has_the_intercept_and_septa_of_health() -> None:
    tissue = lines(Foam(1, LOBULES))
    assert 0.2 < intercept(tissue) < 0.3
    assert 0.008 < thickness(tissue) < 0.016
    assert 0.05 < tissue.mean() < 0.15


def test_emphysema_enlarges_airspaces_in_the_middle_of_lobules_only() -> None:
    ill = LobuleDisease(1, Disease(emphysema=1.0))
    middle, edge = a_lobule(), a_lobule() + 0.5 * LOBULES.to_mm(np.array([1.0, 0, 0]))
    foam = Foam(1, LOBULES, ill=ill)
    inside = lines(foam, centre=middle)
    assert intercept(inside) > 0.6
    assert AIR + inside.mean() * (SEPTUM - AIR) < -950
    # Walls that remain are those of health.
    assert 0.008 < thickness(inside) < 0.016
    # The lines are 4 mm long, so that a few reach into the middle of a lobule.
    unlike = lines(foam, centre=edge) != lines(Foam(1, LOBULES), centre=edge)
    assert unlike.mean() < 0.05


def test_fibrosis_thickens_septa_and_leaves_airspaces() -> None:
    healthy = lines(Foam(1, LOBULES, ill=LobuleDisease(1, HEALTHY)))
    tissue = lines(Foam(1, LOBULES, ill=LobuleDisease(1, Disease(fibrosis=1.0))))
    assert thickness(tissue) > 2.5 * thickness(healthy)
    assert intercept(tissue) == pytest.approx(intercept(healthy), rel=0.15)
    assert -800 < AIR + tissue.mean() * (SEPTUM - AIR) < -500


def test_fibrosis_begins_under_the_pleura() -> None:
    ill = LobuleDisease(3, Disease(fibrosis=0.8), lambda points: (points[:, 0] > 0).astype(float))
    cells = np.stack(np.meshgrid(*[np.arange(-6, 6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    found = ill.fibrotic(cells, cells.astype(float))
    assert not found[cells[:, 0] <= 0].any()
    assert found[cells[:, 0] > 0].mean() == pytest.approx(0.8, abs=0.05)


def slopes(volume: np.ndarray, lung: np.ndarray, pixel: float, edge: int = 56) -> list[float]:
    """Exponents of the radial power spectra of squares inside the lung, one a slice."""
    found = []
    for section, inside in zip(volume.clip(-1000, 200), lung, strict=True):
        sums = np.pad(inside.astype(int), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        area = sums[edge:, edge:] - sums[:-edge, edge:] - sums[edge:, :-edge]
        area += sums[:-edge, :-edge]
        row, column = np.unravel_index(np.argmax(area), area.shape)
        if area[row, column] > 0.98 * edge**2:
            square = section[row : row + edge, column : column + edge]
            found.append(spectrum_slope(square.astype(float), pixel, 0.05, 0.35))
    return found


@pytest.fixture(scope="module")
def phantom_slope() -> float:
    scanner = ClinicalScanner(pixel=0.7, slice_thickness=1.25)
    size = (180, 160, 3)
    volume = render_clinical(21, size, scanner).array
    lung = render_lung_mask(21, size, scanner).array > 0
    return float(np.mean(slopes(volume, lung, 0.7)))


@pytest.mark.slow
def test_power_falls_with_about_the_square_of_the_frequency(phantom_slope: float) -> None:
    assert -2.5 < phantom_slope < -1.6


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["LIDC-IDRI-0001", "LIDC-IDRI-0002"])
def test_texture_falls_off_as_in_real_scans(
    name: str, phantom_slope: float, shared_data: Path
) -> None:
    volume, lung = (
        np.asarray(nib.Nifti1Image.from_filename(path).dataobj).T[20:100:4]
        for path in (
            shared_data / "clinical" / f"{name}_lungbox.nii.gz",
            shared_data / "clinical" / f"{name}_lungbox_mask.nii.gz",
        )
    )
    real = slopes(volume, lung > 0, 0.7)
    assert len(real) > 5
    assert np.mean(real) == pytest.approx(phantom_slope, abs=0.4)
