"""The two scanners that look at the phantom: what they average, blur, add and count in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class MicroScanner:
    """A laboratory cone-beam micro-CT of an inflated, fixed lung specimen.

    Attributes:
        voxel: voxel size in mm, the same along x, y and z. 0.0625 is an eighth of the clinical
            pixel and close to the 0.05 mm of the paper's specimens.
        psf_fwhm: full width at half maximum of the point spread, mm, along all axes, before the
            average over the voxel. About one voxel: focal spot and detector.
        noise: standard deviation in stored units; white but for `noise_fwhm`.
        noise_fwhm: blur of the noise in voxels: reconstruction filter and interpolation.
        air, water: stored values of air and of water. Scanner units, not HU: air is not at 0.
    """

    voxel: float = 0.0625
    psf_fwhm: float = 0.06
    noise: float = 190.0
    noise_fwhm: float = 1.0
    air: float = 2500.0
    water: float = 9000.0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (x, y, z), mm."""
        return self.voxel, self.voxel, self.voxel

    @property
    def psf_sigma(self) -> tuple[float, float, float]:
        """Standard deviation of the point spread along (x, y, z), voxels."""
        sigma = self.psf_fwhm * FWHM_TO_SIGMA / self.voxel
        return sigma, sigma, sigma

    def units(self, hounsfield: np.ndarray) -> np.ndarray:
        """Stored values of HU, without noise: a line through air and water. Any shape."""
        return self.air + (hounsfield + 1000) * ((self.water - self.air) / 1000)

    def acquire(self, hounsfield: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Add noise and store: HU (z, y, x) -> uint16."""
        values = self.units(hounsfield)
        if self.noise > 0:
            sigma = self.noise_fwhm * FWHM_TO_SIGMA
            values = values + self.noise * unit_noise(values.shape, generator, (sigma,) * 3, None)
        return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


@dataclass(frozen=True)
class ClinicalScanner:
    """A clinical chest CT: thin contiguous slices, a kernel between soft and sharp.

    Attributes:
        pixel: in-plane pixel size, mm; 0.5 is the paper's order of size.
        slice_thickness: thickness and distance of slices, mm (box profile).
        psf_fwhm: in-plane point spread, mm, before the average over the pixel.
        noise: standard deviation in HU at standard chest dose and 1 mm slices.
        noise_fwhm: fine grain of the noise, pixels.
        noise_cutoff: grain above which the noise is taken away, pixels: filtered
            back-projection has no noise at frequency zero.
    """

    pixel: float = 0.5
    slice_thickness: float = 1.0
    psf_fwhm: float = 0.75
    noise: float = 18.0
    noise_fwhm: float = 1.5
    noise_cutoff: float = 5.0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (x, y, z), mm."""
        return self.pixel, self.pixel, self.slice_thickness

    @property
    def psf_sigma(self) -> tuple[float, float, float]:
        """Standard deviation of the point spread along (x, y, z), voxels."""
        sigma = self.psf_fwhm * FWHM_TO_SIGMA / self.pixel
        return sigma, sigma, 0.0

    def acquire(self, hounsfield: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Add noise and store: HU (z, y, x) -> int16, not below -1024."""
        values = hounsfield
        if self.noise > 0:
            fine = self.noise_fwhm * FWHM_TO_SIGMA
            coarse = self.noise_cutoff * FWHM_TO_SIGMA
            grain = unit_noise(values.shape, generator, (0.0, fine, fine), coarse)
            values = values + self.noise * grain
        return np.clip(np.rint(values), -1024, 3071).astype(np.int16)


def blur(values: np.ndarray, sigma: tuple[float, float, float]) -> np.ndarray:
    """Gaussian blur of (z, y, x) values; `sigma` along (z, y, x) in voxels, 0 for none."""
    for axis, width in enumerate(sigma):
        if width > 0:
            values = gaussian_filter1d(values, width, axis=axis, mode="nearest")
    return values


def unit_noise(
    shape: tuple[int, ...],
    generator: np.random.Generator,
    fine: tuple[float, float, float],
    coarse: float | None,
) -> np.ndarray:
    """Correlated Gaussian noise of standard deviation 1, float32 of `shape` (z, y, x).

    Args:
        shape: (z, y, x).
        generator: source of randomness.
        fine: sigma of the blur along (z, y, x), voxels.
        coarse: in-plane sigma of a wider blur that is subtracted (band-pass), or None.
    """
    white = generator.standard_normal(shape, dtype=np.float32)
    noise = _shape_noise(white, fine, coarse)
    # The gain is that of the filter's own response to a single bright voxel (Parseval).
    spike = np.zeros((17, 33, 33), np.float32)
    spike[8, 16, 16] = 1
    return noise / np.float32(np.linalg.norm(_shape_noise(spike, fine, coarse)))


def _shape_noise(
    white: np.ndarray, fine: tuple[float, float, float], coarse: float | None
) -> np.ndarray:
    noise = blur(white, fine)
    return noise if coarse is None else noise - blur(white, (0.0, coarse, coarse))
