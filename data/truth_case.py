"""A clinical CT with its truth: the same field, finer in plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# What a voxel of the truth is. Pairs other than the phantom's know outside and parenchyma only.
LABELS = {
    "outside": 0,
    "parenchyma": 1,
    "vessel": 2,
    "airway": 3,  # its wall
    "nodule": 4,
    "lumen": 5,  # of an airway
    "septum": 6,  # between lobules, and the fissure
}


@dataclass(frozen=True)
class TruthCase:
    """One patient seen by the clinical scanner, and the truth."""

    name: str
    group: str  # of patients that are summed up by themselves: the phantom's disease
    clinical: np.ndarray  # HU, float32 (slices, rows, columns)
    mask: np.ndarray  # lung on that grid, bool
    # truth, thin: HU on a grid `scale` times as fine in plane, float32: the average over a slice's
    # thickness, and one fine voxel in the middle of it (the truth itself where nobody knows)
    truth: np.ndarray
    thin: np.ndarray
    labels: np.ndarray  # uint8 on the truth's grid, see `LABELS`
    affine: np.ndarray  # (4, 4) of the truth, voxel (x, y, z) -> mm
    scale: int  # clinical pixel / pixel of the truth

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the truth along (x, y, z) in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def labelled(self, *names: str) -> np.ndarray:
        """Bool mask, on the truth's grid, of structures by name."""
        return np.isin(self.labels, [LABELS[name] for name in names])

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Masks on the truth's grid by name, the whole lung first; those that the patient has none
        of are left out."""
        masks = {
            "lung": self.labels != LABELS["outside"],
            "parenchyma": self.labelled("parenchyma"),
            "septa": self.labelled("septum"),
            "vessels": self.labelled("vessel", "airway", "lumen"),
            "nodule": self.labelled("nodule"),
        }
        return {name: mask for name, mask in masks.items() if mask.any()}
