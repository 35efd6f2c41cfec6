"""How a clinical scanner would have seen a micro-CT patch: the input of pseudo-pairs.

P, the area average, is all that a clinical CT does to tissue in the losses of the paper. A real one
also blurs by its kernel and adds noise. Pairs made with such a scanner teach G_A to undo it
(docs/method.md, `--lambda_pair`): one scanner of known blur and noise, or another one for each
patch, so that what is learned holds on scanners that nobody measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.line_filters import gaussian_weights, weighted_neighbours
from models.losses import pool
from util.images.point_spread import FWHM_TO_SIGMA, HALF_OF_GAUSSIAN

Range = tuple[float, float]

EXACTLY_NONE = 0.2  # share of patches without any blur, and of those without any noise
SHARPENED = 0.5  # share of kernels that lift fine detail
SHARPENING_SIGMA = 0.64  # clinical pixels; what is coarser than that is not lifted
WITH_RAMP = 0.5  # share of noise that has the ramp of filtered back-projection
WITH_GRAIN = 0.7  # share of noise that is blurred
WITH_FLOOR = 0.5  # share of noise that is white in part
GRAIN: Range = (0.0, 3.2)  # by this full width at half maximum, clinical pixels


class Scanner:
    """What the scanners share: the area average, and then what the machine does to it.

    Args:
        scale: 2^n.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, micro: Tensor) -> Tensor:
        """Map (N, 1, H, W) in [-1, 1] to (N, 1, H / scale, W / scale), a new noise each time."""
        return self.acquire(pool(micro, self.scale))

    def acquire(self, averaged: Tensor) -> Tensor:
        """Blur and noise of an area average, (N, 1, h, w) in [-1, 1]; the shape stays.

        All draws come from torch's generator of the device.
        """
        raise NotImplementedError


class FixedScanner(Scanner):
    """Gaussian blur, and noise as filtered back-projection leaves it (`--scanner fixed`).

    Args:
        scale: 2^n.
        blur: full width at half maximum of the point spread in clinical pixels, beyond the average
            over the pixel; 0 for none.
        noise: standard deviation of the noise on the scale of [-1, 1]; 0 for none.
    """

    def __init__(self, scale: int, blur: float = 0.0, noise: float = 0.0) -> None:
        super().__init__(scale)
        self.sigma = blur * FWHM_TO_SIGMA
        self.noise = noise

    def acquire(self, averaged: Tensor) -> Tensor:
        seen = averaged
        if self.sigma > 0:
            seen = self._blurred(seen)
        if self.noise > 0:
            seen = seen + self.noise * self.unit_noise(seen)
        return seen.clamp(-1, 1) if self.noise > 0 else seen

    def _blurred(self, images: Tensor) -> Tensor:
        reach = min(math.ceil(3 * self.sigma), min(images.shape[2:]) - 1)
        padded = F.pad(images, [reach] * 4, mode="reflect")
        return weighted_neighbours(padded, gaussian_weights(self.sigma, reach))

    def unit_noise(self, like: Tensor) -> Tensor:
        """Noise of standard deviation 1 whose power goes with f * MTF(f)^2, in the shape of `like`.

        The spectrum is that of filtered back-projection (Riederer et al., Phys. Med. Biol. 23
        (1978) 446-454) with the blur's MTF.
        """
        frequency = frequencies(like)
        return coloured_noise(like, frequency.sqrt() * gaussian_transfer(frequency, self.sigma))


@dataclass(frozen=True)
class ScannerRanges:
    """What scanners are drawn from, evenly; `options/train_groups.py` has the defaults."""

    # full width at half maximum of the point spread, clinical pixels: that of a Gaussian whose MTF
    # has its half at the same frequency
    blur: Range
    steepness: Range  # s of the MTF 2^-((f / half)^s); 2 is a Gaussian
    sharpening: Range  # by how much the kernel lifts fine detail; 1 doubles it
    noise: Range  # standard deviation on the scale of [-1, 1]: 0.1 are 75 HU
    calibration: float  # largest error of the offset, and of the slope from air on
    # whether they lie around a scanner that is known: every patch then has blur and noise, the
    # noise is that of filtered back-projection by the patch's own kernel, and nothing is lifted
    known: bool = False


class RandomScanner(Scanner):
    """Another scanner for each patch (`--scanner random`).

    Drawn apart from each other for each patch: the point spread and how steep its MTF falls, whose
    fine detail may be lifted, as sharp kernels do until they overshoot; the level of the noise; the
    spectrum of the noise, white or with the ramp of filtered back-projection, blurred or not, and
    half of the time white in part all the same; and errors of calibration. One patch in five has no
    blur and one in five no noise at all. Around a known scanner less is open (`ScannerRanges`).

    Args:
        scale: 2^n.
        ranges: to draw from.
    """

    def __init__(self, scale: int, ranges: ScannerRanges) -> None:
        super().__init__(scale)
        self.ranges = ranges

    def acquire(self, averaged: Tensor) -> Tensor:
        ranges, count = self.ranges, averaged.shape[0]

        def drawn(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, 1, 1, 1, device=averaged.device)

        def happens(share: float) -> Tensor:
            return (torch.rand(count, 1, 1, 1, device=averaged.device) < share).float()

        none = 0.0 if ranges.known else EXACTLY_NONE
        width = drawn(*ranges.blur) * happens(1 - none)
        steepness = drawn(*ranges.steepness)
        lift = drawn(*ranges.sharpening) * happens(0.0 if ranges.known else SHARPENED)
        grain = FWHM_TO_SIGMA * drawn(*GRAIN) * happens(WITH_GRAIN)
        ramp = happens(1.0 if ranges.known else WITH_RAMP)
        floor = drawn(0.0, 1.0) * happens(0.0 if ranges.known else WITH_FLOOR)  # white share
        level = drawn(*ranges.noise) * happens(1 - none)
        offset, slope = (drawn(-ranges.calibration, ranges.calibration) for _ in range(2))

        seen = self._through_kernel(averaged, width, steepness, lift)
        frequency = frequencies(seen)
        if ranges.known:
            smoothing = transfer(frequency, width, steepness)
        else:
            smoothing = gaussian_transfer(frequency, grain)
        noise = (1 - floor).sqrt() * coloured_noise(seen, frequency.sqrt() ** ramp * smoothing)
        seen = seen + level * (noise + floor.sqrt() * torch.randn_like(seen))
        return ((seen + 1) * (1 + slope) - 1 + offset).clamp(-1, 1)

    def _through_kernel(
        self, images: Tensor, width: Tensor, steepness: Tensor, lift: Tensor
    ) -> Tensor:
        widest = self.ranges.blur[1] * FWHM_TO_SIGMA + SHARPENING_SIGMA
        reach = min(math.ceil(3 * widest), min(images.shape[2:]) - 1)
        padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
        frequency = frequencies(padded)
        kernel = transfer(frequency, width, steepness)
        kernel = kernel * (1 + lift * (1 - gaussian_transfer(frequency, SHARPENING_SIGMA)))
        return filtered(padded, kernel)[..., reach:-reach, reach:-reach]


def frequencies(images: Tensor) -> Tensor:
    """Frequencies of the half spectrum of images (..., H, W), cycles a pixel: (H, W // 2 + 1)."""
    height, width = images.shape[-2:]
    down = torch.fft.fftfreq(height, device=images.device)[:, None]
    across = torch.fft.rfftfreq(width, device=images.device)
    return torch.sqrt(down**2 + across**2)


def gaussian_transfer(frequency: Tensor, sigma: float | Tensor) -> Tensor:
    """MTF of a Gaussian point spread of `sigma` pixels."""
    return torch.exp(-2 * (math.pi * sigma * frequency) ** 2)


def transfer(frequency: Tensor, width: Tensor, steepness: Tensor) -> Tensor:
    """MTF 2^-((f / half)^steepness) with the half of a Gaussian point spread of `width` pixels."""
    half_widths = frequency * width / HALF_OF_GAUSSIAN
    return torch.exp2(-(half_widths**steepness))


def filtered(images: Tensor, response: Tensor) -> Tensor:
    """Images (N, 1, H, W) times a transfer function (N, 1 or nothing, then as `frequencies`)."""
    return torch.fft.irfft2(torch.fft.rfft2(images) * response, s=tuple(images.shape[-2:]))


def coloured_noise(like: Tensor, amplitude: Tensor) -> Tensor:
    """Noise of standard deviation 1 in the shape of `like`, of this spectrum (as `frequencies`).

    Scaled by its expectation, so that a patch may have more or less of it.
    """
    height, width = like.shape[-2:]
    across = torch.fft.rfftfreq(width, device=like.device)
    # Of a real image's spectrum only the lowest and the highest frequency across stand once.
    twice = torch.where((across == 0) | (across == 0.5), 1.0, 2.0)
    power = (amplitude**2 * twice).sum((-2, -1), keepdim=True) / (height * width)
    return filtered(torch.randn_like(like), amplitude) / power.sqrt()
