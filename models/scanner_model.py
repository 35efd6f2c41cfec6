"""How a clinical scanner would have seen a micro-CT patch: the input of pseudo-pairs.

P, the area average, is all that a clinical CT does to tissue in the losses of the paper. A real one
also blurs by its kernel and adds noise. Where both are known, pairs made with them teach G_A to
undo them (docs/method.md, `--lambda_pair`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import pool

FWHM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))


class ScannerModel:
    """Area average, Gaussian blur, and noise as filtered back-projection leaves it.

    Args:
        scale: 2^n.
        blur: full width at half maximum of the point spread in clinical pixels, beyond the average
            over the pixel; 0 for none.
        noise: standard deviation of the noise on the scale of [-1, 1]; 0 for none.
    """

    def __init__(self, scale: int, blur: float = 0.0, noise: float = 0.0) -> None:
        self.scale = scale
        self.sigma = blur * FWHM_TO_SIGMA
        self.noise = noise

    def __call__(self, micro: Tensor) -> Tensor:
        """Map (N, 1, H, W) in [-1, 1] to (N, 1, H / scale, W / scale), a new noise each time.

        The noise comes from torch's generator of the device.
        """
        seen = pool(micro, self.scale)
        if self.sigma > 0:
            seen = self._blurred(seen)
        if self.noise > 0:
            seen = seen + self.noise * self.unit_noise(seen)
        return seen.clamp(-1, 1) if self.noise > 0 else seen

    def _blurred(self, images: Tensor) -> Tensor:
        reach = min(math.ceil(3 * self.sigma), min(images.shape[2:]) - 1)
        offset = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        weights = torch.exp(-(offset**2) / (2 * self.sigma**2))
        weights = weights / weights.sum()
        padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
        padded = F.conv2d(padded, weights.view(1, 1, -1, 1))
        return F.conv2d(padded, weights.view(1, 1, 1, -1))

    def unit_noise(self, like: Tensor) -> Tensor:
        """Noise of standard deviation 1 whose power goes with f * MTF(f)^2, in the shape of `like`.

        The spectrum is that of filtered back-projection (Riederer et al., Phys. Med. Biol. 23
        (1978) 446-454) with the blur's MTF.
        """
        height, width = like.shape[2:]
        down = torch.fft.fftfreq(height, device=like.device)[:, None]
        across = torch.fft.rfftfreq(width, device=like.device)
        frequency = torch.sqrt(down**2 + across**2)
        transfer = torch.exp(-2 * (math.pi * self.sigma * frequency) ** 2)
        spectrum = torch.fft.rfft2(torch.randn_like(like)) * frequency.sqrt() * transfer
        noise = torch.fft.irfft2(spectrum, s=(height, width))
        # By its expectation, so that a patch may have more or less of it.
        # Of a real image's spectrum only the lowest and the highest frequency across stand once.
        twice = torch.where((across == 0) | (across == 0.5), 1.0, 2.0)
        power = (frequency * transfer**2 * twice).sum() / (height * width)
        return noise / power.sqrt()
