"""The two scanners that look at the phantom: what they average, blur, add and count in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter1d

from util.images.point_spread import FWHM_TO_SIGMA


@dataclass(frozen=True)
class MicroScanner:
    """A laboratory cone-beam micro-CT of an inflated, fixed lung specimen."""

    # voxel size in mm along x and y. 0.0625 is an eighth of the clinical pixel and close to the
    # 0.05 mm of the paper's specimens.
    voxel: float = 0.0625
    # mm along z; None for cubes, as specimens are scanned. Something near the voxel where clinical
    # slices beside it are no whole number of voxels thick.
    depth: float | None = None
    # full width at half maximum of the point spread, mm, along all axes, before the average over
    # the voxel. About one voxel: focal spot and detector.
    psf_fwhm: float = 0.06
    # standard deviation in stored units, white but for `noise_fwhm`. 455 are 70 HU.
    noise: float = 455.0
    noise_fwhm: float = 1.0  # blur of the noise in voxels: reconstruction filter and interpolation
    # standard deviation in stored units of ring artefacts, where there are rings
    ring: float = 120.0
    # share of radii (one voxel wide) that have a ring: detector columns that count too much or too
    # little leave rings around the axis, in each slice others
    ring_share: float = 0.06
    # air, water: stored values of air and of water. Scanner units, not HU: air is not at 0.
    air: float = 2500.0
    water: float = 9000.0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (x, y, z), mm."""
        return self.voxel, self.voxel, self.depth or self.voxel

    @property
    def margin(self) -> tuple[int, int, int]:
        """Voxels (x, y, z) beyond the border that the blur reads."""
        x, y, z = (int(np.ceil(3 * sigma)) for sigma in self._sigma)
        return x, y, z

    @property
    def _sigma(self) -> tuple[float, float, float]:
        sigma = self.psf_fwhm * FWHM_TO_SIGMA
        x, y, z = (sigma / length for length in self.spacing)
        return x, y, z

    def blur(self, hounsfield: np.ndarray) -> np.ndarray:
        """Apply the point spread to HU (z, y, x)."""
        return blur(hounsfield, self._sigma[::-1])

    def units(self, hounsfield: np.ndarray) -> np.ndarray:
        """Stored values of HU, without noise: a line through air and water. Any shape."""
        return self.air + (hounsfield + 1000) * ((self.water - self.air) / 1000)

    def acquire(self, hounsfield: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Add rings and noise and store: HU (z, y, x), the axis in its middle -> uint16."""
        values = self.units(hounsfield)
        if self.noise > 0:
            sigma = self.noise_fwhm * FWHM_TO_SIGMA
            values = values + self.noise * smooth_noise(values.shape, generator, (sigma,) * 3)
        if self.ring > 0:
            values = values + rings(values.shape, generator, self.ring, self.ring_share)
        return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel by its modulation transfer function.

    MTF(f) = exp(-ln 2 * (f / half)^p), where p lets it pass through 10 % at `tenth`.
    """

    # half, tenth: cycles/mm at which contrast falls to 50 % and 10 %
    half: float
    tenth: float

    def transfer(self, frequency: np.ndarray) -> np.ndarray:
        """MTF at frequencies (cycles/mm), 1 at 0."""
        power = np.log(np.log(10) / np.log(2)) / np.log(self.tenth / self.half)
        response: np.ndarray = np.exp(-np.log(2) * (frequency / self.half) ** power)
        return response


# Of the order of soft-tissue, standard and lung kernels of clinical scanners.
KERNELS = {
    "soft": Kernel(0.32, 0.60),
    "standard": Kernel(0.42, 0.61),
    "sharp": Kernel(0.70, 1.05),
}


THIN = 4  # slices that are rendered for each clinical one, to weigh by its profile


@dataclass(frozen=True)
class ClinicalScanner:
    """A clinical chest CT: thin slices, a kernel, and noise of filtered back-projection."""

    pixel: float = 0.5  # in-plane pixel size, mm, 0.4 to 0.9 on scanners; 0.5 is the paper's order
    slice_thickness: float = 0.5  # thickness and distance of slices, mm
    # slices are not boxes: full width at half maximum of the blur along z in slice thicknesses, as
    # helical interpolation and the detector leave it; 0 for none (Kalender, Computed Tomography,
    # 3rd ed. 2011)
    profile: float = 0.4
    # a name of KERNELS, whose MTF holds the focal spot, the detector and the filter, or none, which
    # leaves the average over the voxel alone
    kernel: str = "standard"
    # standard deviation in HU of 1 mm slices at full dose: 13 HU at 1.25 mm, as in soft tissue of
    # LIDC-IDRI-0001 and -0002
    noise: float = 14.5
    noise_along: float = 1.2  # full width at half maximum of the noise's blur along z, slices
    dose: float = 1.0  # share of a standard chest dose; noise goes with its inverse root

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (x, y, z), mm."""
        return self.pixel, self.pixel, self.slice_thickness

    @property
    def margin(self) -> int:
        """Pixels beyond the border along x and y that the kernel reads: its point spread is
        short."""
        return int(np.ceil(1.5 / self.pixel))

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise in HU."""
        return float(self.noise / np.sqrt(self.dose * self.slice_thickness))

    def reach(self, per_slice: int) -> int:
        """Thin slices, of which `per_slice` are as thick as a slice, that its profile reaches
        beyond it on either side."""
        return round(3 * self.profile * FWHM_TO_SIGMA * per_slice)

    def slices(self, thin: np.ndarray, per_slice: int) -> np.ndarray:
        """Thin slices weighted by the profile: (n * per_slice + 2 * reach, y, x) -> (n, y, x)."""
        blurred = blur(thin, (self.profile * FWHM_TO_SIGMA * per_slice, 0, 0))
        reach = self.reach(per_slice)
        inner = blurred[reach : len(thin) - reach]
        mean: np.ndarray = inner.reshape(-1, per_slice, *thin.shape[1:]).mean(axis=1)
        return mean

    def blur(self, hounsfield: np.ndarray) -> np.ndarray:
        """Apply the kernel's MTF to HU (z, y, x), in plane."""
        # Mirrored to twice the size, so that no edge meets the opposite one.
        rows, columns = hounsfield.shape[1:]
        wide = np.pad(hounsfield, ((0, 0), (0, rows), (0, columns)), mode="symmetric")
        return self._filtered(wide, self._transfer(wide.shape))[:, :rows, :columns]

    def acquire(self, hounsfield: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Add noise and store: HU (z, y, x) -> int16, not below -1024."""
        values = hounsfield
        if self.noise > 0:
            values = values + self.deviation * self.unit_noise(values.shape, generator)
        return np.clip(np.rint(values), -1024, 3071).astype(np.int16)

    def unit_noise(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        """Noise of standard deviation 1 with the spectrum of filtered back-projection.

        Its power in plane is proportional to f * MTF(f)^2 (Riederer et al., Phys. Med. Biol. 23
        (1978) 446-454): none at frequency zero, and the kernel's grain. Neighbouring slices are
        alike by the blur along z.

        Args:
            shape: (z, y, x).
            generator: source of randomness.
        """
        if shape[1:] == (1, 1):  # there is no frequency but zero: one pixel of larger slices
            return self.unit_noise((shape[0], 2, 2), generator)[:, :1, :1]
        amplitude = np.sqrt(self._frequency(shape)) * self._transfer(shape)
        # Parseval: every frequency but those of the half spectrum's edges counts twice.
        twice = np.full(amplitude.shape[1], 2.0)
        twice[0] = 1
        if shape[2] % 2 == 0:
            twice[-1] = 1
        gain = np.sqrt((amplitude**2 * twice).sum() / (shape[1] * shape[2]))
        white = smooth_noise(shape, generator, (self.noise_along * FWHM_TO_SIGMA, 0, 0))
        return self._filtered(white, amplitude / gain)

    def _frequency(self, shape: tuple[int, ...]) -> np.ndarray:
        down = np.fft.fftfreq(shape[1], self.pixel)[:, None]
        return np.hypot(down, np.fft.rfftfreq(shape[2], self.pixel))

    def _transfer(self, shape: tuple[int, ...]) -> np.ndarray:
        frequency = self._frequency(shape)
        if self.kernel == "none":
            return np.ones_like(frequency)
        return KERNELS[self.kernel].transfer(frequency)

    def _filtered(self, values: np.ndarray, response: np.ndarray) -> np.ndarray:
        """Slices times a response in the frequency domain; float32."""
        response = response.astype(np.float32)
        return np.stack(
            [irfft2(rfft2(plane) * response, s=plane.shape) for plane in values.astype(np.float32)]
        )


def rings(
    shape: tuple[int, ...], generator: np.random.Generator, deviation: float, share: float
) -> np.ndarray:
    """Ring artefacts around the middle of each slice: float32 of `shape` (z, y, x)."""
    slices, rows, columns = shape
    y, x = np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    radius = np.rint(np.hypot(y[:, None], x)).astype(np.intp)
    count = int(radius.max()) + 1
    strength = generator.standard_normal((slices, count), dtype=np.float32) * deviation
    strength[generator.random((slices, count)) >= share] = 0
    return strength[:, radius]


def blur(values: np.ndarray, sigma: tuple[float, float, float]) -> np.ndarray:
    """Gaussian blur of (z, y, x) values; `sigma` along (z, y, x) in voxels, 0 for none."""
    for axis, width in enumerate(sigma):
        if width > 0:
            values = gaussian_filter1d(values, width, axis=axis, mode="nearest")
    return values


def smooth_noise(
    shape: tuple[int, ...], generator: np.random.Generator, sigma: tuple[float, float, float]
) -> np.ndarray:
    """Blurred Gaussian noise of standard deviation 1, float32 of `shape` (z, y, x).

    Args:
        shape: (z, y, x).
        generator: source of randomness.
        sigma: of the blur along (z, y, x), voxels.
    """
    noise = blur(generator.standard_normal(shape, dtype=np.float32), sigma)
    # The gain is that of the filter's own response to a single bright voxel (Parseval).
    spike = np.zeros((17, 33, 33), np.float32)
    spike[8, 16, 16] = 1
    return noise / np.float32(np.linalg.norm(blur(spike, sigma)))
