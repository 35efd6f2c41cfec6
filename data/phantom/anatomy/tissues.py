"""Tissues of the phantom by their physical density, and the CT numbers that follow.

CT number in HU = 1000 * (linear attenuation / that of water - 1), with linear attenuation = density
* mass attenuation. Mass attenuation at 60 keV, the effective energy of a chest CT at 120 kV, and
densities: NIST, Tables of X-Ray Mass Attenuation Coefficients (2004), ICRU-44 tissues.
"""

from __future__ import annotations

from dataclasses import dataclass

WATER_ATTENUATION = 0.2059  # cm^2/g at 60 keV


@dataclass(frozen=True)
class Tissue:
    """A tissue, or a mixture of them."""

    density: float  # g/cm^3
    attenuation: float  # mass attenuation at 60 keV, cm^2/g

    @property
    def hounsfield(self) -> float:
        """CT number in HU."""
        return 1000 * (self.density * self.attenuation / WATER_ATTENUATION - 1)

    def mixed(self, other: Tissue, share: float) -> Tissue:
        """`share` of the volume filled by another tissue."""
        density = (1 - share) * self.density + share * other.density
        mass = (1 - share) * self.density * self.attenuation
        mass += share * other.density * other.attenuation
        return Tissue(density, mass / density)


AIR_37 = Tissue(0.00114, 0.1875)  # moist, at body temperature
ADIPOSE = Tissue(0.95, 0.1974)
SOFT = Tissue(1.05, 0.2048)  # skeletal muscle
WHOLE_BLOOD = Tissue(1.06, 0.2057)
LUNG_TISSUE = Tissue(1.05, 0.2053)  # septa with their capillaries, collapsed
BONE = Tissue(1.92, 0.3148)  # cortical
RED_MARROW = Tissue(1.03, 0.2035)

AIR = AIR_37.hounsfield
FAT = ADIPOSE.hounsfield
MUSCLE = SOFT.hounsfield
BLOOD = WHOLE_BLOOD.hounsfield
SEPTUM = LUNG_TISSUE.hounsfield
AIRWAY_WALL = SOFT.mixed(ADIPOSE, 0.1).hounsfield  # mucosa, muscle and some fat
SKIN = Tissue(1.09, 0.2048).mixed(ADIPOSE, 0.2).hounsfield
SOLID_NODULE = SOFT.mixed(ADIPOSE, 0.05).hounsfield
# Ribs are porous: haversian canals and marrow spaces below the voxel.
CORTICAL_BONE = BONE.mixed(RED_MARROW, 0.45).hounsfield
SPONGY_BONE = BONE.mixed(RED_MARROW, 0.88).hounsfield
