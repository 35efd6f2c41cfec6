"""What is known to be in a case, and how well an image shows it, in measures that ask for place."""

from __future__ import annotations

import numpy as np

from data.truth_case import TruthCase
from util.images.airways import Airway, find_airways, measure_airway
from util.images.detection import Detection, Structures, ridges, thinner_than
from util.images.nodules import Nodule
from util.images.texture import airspace_fraction, airspace_threshold, mean_linear_intercept

SMALL_VESSEL = 1.0  # mm
REACH = 0.5  # clinical pixels that a mark may lie off
RIDGE_WIDTH = 0.15  # mm: of septa, and of vessels of a few tenths


class KnownStructures:
    """Septa, small vessels, airways and the nodule of a case: its labels say where they are, the
    noise-free truth how they look.

    Args:
        case: one without such labels has nothing of it, and all its measures are NaN.
    """

    def __init__(self, case: TruthCase) -> None:
        spacing, reach = case.spacing[0], REACH * case.scale
        self._spacing = spacing
        self._ridge = RIDGE_WIDTH / spacing
        outside = case.labelled("outside")
        dense = case.labelled("vessel", "airway", "nodule", "septum")
        labelled = {
            "septa": case.labelled("septum"),
            "vessels": thinner_than(case.labelled("vessel"), SMALL_VESSEL / spacing),
        }
        present = {name: one for name, one in labelled.items() if one.any()}
        strength = ridges(case.truth, self._ridge) if present else np.empty(0, np.float32)
        self._targets = {
            name: Structures(one, (dense & ~one) | outside, strength, reach)
            for name, one in present.items()
        }
        kinds = [case.labelled(name) for name in ("lumen", "airway", "parenchyma")]
        self._airways: list[tuple[int, Airway, float, float]] = []
        for index, (lumen, wall, parenchyma) in enumerate(zip(*kinds, strict=True)):
            for airway in find_airways(lumen, wall, parenchyma, spacing):
                sizes = measure_airway(case.truth[index], airway, spacing)
                self._airways.append((index, airway, *sizes))
        self._nodule = _nodule(case)
        self._volume = self._nodule.volume(case.truth) if self._nodule else float("nan")

    def measures(self, image: np.ndarray) -> dict[str, float]:
        """Of an image in HU, on the truth's grid: see `methods.truth.scores.MEASURES`."""
        found: dict[str, float] = {}
        strength = ridges(image, self._ridge) if self._targets else np.empty(0, np.float32)
        for name, target in self._targets.items():
            for part, value in zip(Detection._fields, target.found_by(strength), strict=True):
                found[f"{name}_{part}"] = value
        if self._airways:
            errors = []
            for index, airway, true_lumen, true_wall in self._airways:
                lumen, wall = measure_airway(image[index], airway, self._spacing)
                errors.append((abs(lumen / true_lumen - 1), abs(wall / true_wall - 1)))
            lumen_error, wall_error = 100 * np.mean(errors, axis=0)
            found |= {"airway_lumen": float(lumen_error), "airway_wall": float(wall_error)}
        if self._nodule is not None:
            found["nodule_boundary"] = self._nodule.boundary_distance(image)
            found["nodule_volume"] = 100 * abs(self._nodule.volume(image) / self._volume - 1)
        return found


def _nodule(case: TruthCase) -> Nodule | None:
    """The case's nodule, told from lung half way between their medians in the truth."""
    regions = case.regions
    if "nodule" not in regions:
        return None
    mask = regions["nodule"]
    middle = (np.median(case.truth[mask]) + np.median(case.truth[regions["parenchyma"]])) / 2
    other = regions.get("vessels", np.zeros_like(mask))
    return Nodule(mask, other, float(middle), case.spacing)


class Airspaces:
    """Airspaces of the parenchyma, told from tissue by the threshold of thin slices.

    Both are texture statistics: noise breaks long intercepts into short ones.
    """

    def __init__(self, thin: np.ndarray, parenchyma: np.ndarray, spacing: float) -> None:
        self._mask, self._spacing = parenchyma, spacing
        self.threshold = airspace_threshold(thin, parenchyma)
        self.intercept = self._intercept(thin)
        self.fraction = airspace_fraction(thin, parenchyma, self.threshold)

    def errors(self, image: np.ndarray) -> tuple[float, float]:
        """Errors in percent of the mean linear intercept (relative) and the airspace fraction
        (of the parenchyma)."""
        intercept = 100 * abs(self._intercept(image) / self.intercept - 1)
        fraction = airspace_fraction(image, self._mask, self.threshold)
        return intercept, 100 * abs(fraction - self.fraction)

    def _intercept(self, image: np.ndarray) -> float:
        return mean_linear_intercept(image, self._mask, self.threshold, self._spacing)
