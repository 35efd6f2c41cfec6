"""D_A and D_B, which tell real images from generated ones.

Paper: J. Med. Imaging 9(2) 024003 (2022), network sections. Keys of the state dicts are the
published ones, as in models/networks.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.networks import make_norm


class PatchDiscriminator(nn.Module):
    """D_A and D_B: PatchGAN whose every output judges one patch (70x70 with three layers).

    Input (N, 1, H, W) in [-1, 1]; output (N, 1, h, w), an unbounded score a patch. With three
    layers H and W must be at least 24 and a 32x32 input gives 2x2 scores.
    """

    def __init__(self, ndf: int = 64, layers: int = 3, norm: str = "instance") -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(1, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = ndf
        for layer in range(1, layers + 1):
            wider = ndf * min(2**layer, 8)
            modules += [
                nn.Conv2d(channels, wider, 4, stride=2 if layer < layers else 1, padding=1),
                make_norm(norm, wider),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        modules.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.model = nn.Sequential(*modules)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 1, H, W) to the score map (N, 1, h, w)."""
        return self.model(image)


class PixelDiscriminator(nn.Module):
    """A 1x1 PatchGAN: judges grey values pixel by pixel, no texture (`--netD pixel`)."""

    def __init__(self, ndf: int = 64, norm: str = "instance") -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, ndf, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 1),
            make_norm(norm, 2 * ndf),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 1, H, W) to scores of the same shape."""
        return self.model(image)


def make_discriminator(net: str, ndf: int, layers: int, norm: str) -> nn.Module:
    """Return the discriminator called `net`: basic (70x70), n_layers (`layers` deep) or pixel."""
    if net == "pixel":
        return PixelDiscriminator(ndf, norm)
    if net == "basic":
        return PatchDiscriminator(ndf, 3, norm)
    if net == "n_layers":
        return PatchDiscriminator(ndf, layers, norm)
    raise ValueError(f"netD is {net!r}, expected basic, n_layers or pixel")
