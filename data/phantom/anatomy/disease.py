"""What can be wrong with a phantom's lung."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.phantom.anatomy.lattice import hash_words, uniform

NoduleKind = Literal["none", "solid", "ground_glass"]
Weight = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Disease:
    """How a lung departs from health."""

    # share of lobules whose middle has lost septa, so that airspaces there are `enlarged` mm wide
    # instead of 0.25 (centrilobular emphysema)
    emphysema: float = 0.0
    enlarged: float = 1.6  # width of those airspaces, mm
    # share of the lobules under the pleura whose septa are `thickened` (usual interstitial
    # pneumonia begins there); farther inside it is rarer
    fibrosis: float = 0.0
    thickened: float = 3.5  # by how much alveolar and interlobular septa are thicker there
    nodule: NoduleKind = "none"  # kind of the one nodule of 6 to 9 mm, with spicules, if any


HEALTHY = Disease()
DISEASES: dict[str, Disease] = {
    "healthy": HEALTHY,
    "emphysema": Disease(emphysema=0.8),
    "fibrosis": Disease(fibrosis=0.8),
    "solid_nodule": Disease(nodule="solid"),
    "ground_glass_nodule": Disease(nodule="ground_glass"),
}


def everywhere(points: np.ndarray) -> np.ndarray:
    """Weight 1 at points (n, 3)."""
    return np.ones(len(points))


@dataclass(frozen=True)
class LobuleDisease:
    """Which lobules of one patient are ill."""

    seed: int  # the patient
    disease: Disease  # what there is
    near_pleura: Weight = everywhere  # weight in 0..1 of fibrosis at points (n, 3) in mm

    def emphysematous(self, lobules: np.ndarray) -> np.ndarray:
        """Whether septa are lost in lobules given by cell indices (n, 3): bool (n,)."""
        return uniform(hash_words(self.seed, 51, lobules)) < self.disease.emphysema

    def fibrotic(self, lobules: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Whether septa are thickened in lobules with these centres (n, 3) in mm: bool (n,)."""
        if self.disease.fibrosis == 0:
            return np.zeros(len(lobules), bool)
        chance = self.disease.fibrosis * self.near_pleura(centres)
        return uniform(hash_words(self.seed, 52, lobules)) < chance
