"""The two generators: G_A, which enlarges, and G_B, which shrinks.

Paper: J. Med. Imaging 9(2) 024003 (2022), network sections. Each network is one flat
`nn.Sequential` called `model`; the index of every layer in it is part of the contract, since the
state-dict keys follow from it and weights saved by the original code must load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.drawn_texture import texture_layers
from models.line_filters import enlarge_cubic

RESIDUAL_KERNEL_PADDING = 1
EDGE_PADDING = 3  # the 7x7 convolutions at both ends
SKIPS = ("none", "cubic")
PHASES = 4  # of PixelShuffle(2): the pixels that it makes of one
PART = 4  # layers: padding or none, convolution, norm, shuffle or none, activation


def make_norm(norm: str, channels: int) -> nn.Module:
    """Return the norm layer called `norm`: instance, batch or none (identity, keeps the index)."""
    if norm == "instance":
        # eps 1e-5, no affine parameters, no running statistics: torch's defaults, as published.
        return nn.InstanceNorm2d(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm is {norm!r}, expected instance, batch or none")


class ResidualBlock(nn.Module):
    """x + conv_block(x): two reflection-padded 3x3 convolutions with norm, ReLU between them."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(RESIDUAL_KERNEL_PADDING),
            nn.Conv2d(channels, channels, 3),
            make_norm(norm, channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(RESIDUAL_KERNEL_PADDING),
            nn.Conv2d(channels, channels, 3),
            make_norm(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape; H and W at least 2."""
        return x + self.conv_block(x)


class SRGenerator(nn.Module):
    """G_A: enlarges a clinical slice 2^n times in both in-plane directions.

    Args:
        sampling_times: n, the number of pixel shuffles; the scale is 2^n.
        ngf: channels of the trunk, a multiple of 2^n (64 in the paper).
        blocks: number of residual blocks (9 in the paper).
        norm: instance (published), batch or none.
        skip: none (published: tanh at the end), or cubic: the layers' output is added to the cubic
            enlargement of the input and there is no tanh. The weights' names are the same.
        texture: channels of noise that layers between trunk and upsampling turn into texture
            (models/drawn_texture.py; not of the paper, needs norm none); 0 for no such layers.

    Input (N, 1, H, W) in [-1, 1], H and W at least 4; output (N, 1, H * 2^n, W * 2^n) in [-1, 1]
    (with a skip in evaluation mode only: while training, what overshoots keeps its gradient).
    """

    def __init__(
        self,
        sampling_times: int = 3,
        ngf: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        skip: str = "none",
        texture: int = 0,
    ) -> None:
        super().__init__()
        if ngf % 2**sampling_times:
            raise ValueError(f"ngf is {ngf}, expected a multiple of the scale {2**sampling_times}")
        if skip not in SKIPS:
            raise ValueError(f"skip is {skip!r}, expected one of {', '.join(SKIPS)}")
        if texture and norm != "none":
            raise ValueError(f"texture is {texture} and norm {norm!r}, expected norm none with it")
        self.architecture: dict[str, int | str] = {
            "sampling_times": sampling_times,
            "ngf": ngf,
            "blocks": blocks,
            "norm": norm,
            "skip": skip,
            "texture": texture,
        }
        layers: list[nn.Module] = [  # the stem
            nn.ReflectionPad2d(EDGE_PADDING),
            nn.Conv2d(1, ngf, 7),
            make_norm(norm, ngf),
            nn.PReLU(),
        ]
        layers += [ResidualBlock(ngf, norm) for _ in range(blocks)]
        layers += [  # what merges the blocks' result
            nn.ReflectionPad2d(1),
            nn.Conv2d(ngf, ngf, 3),
            make_norm(norm, ngf),
            nn.PReLU(),
        ]
        channels = ngf
        for _ in range(sampling_times):  # upsampling, the pixel-shuffle tail
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, padding=1),
                make_norm(norm, 2 * channels),
                nn.PixelShuffle(2),
                nn.PReLU(),
            ]
            channels //= 2
        ending = nn.Tanh() if skip == "none" else nn.Identity()
        layers += [nn.ReflectionPad2d(EDGE_PADDING), nn.Conv2d(channels, 1, 7), ending]
        self.model = nn.Sequential(*layers)
        self.texture = texture_layers(ngf, texture) if texture else None

    # The parts of `model`, for engines that run them apart. All but the blocks and the output are
    # four layers long.

    @property
    def stem(self) -> nn.Sequential:
        """7x7 convolution from the image."""
        return self.model[:PART]

    @property
    def blocks(self) -> list[ResidualBlock]:
        """The residual blocks."""
        return [layer for layer in self.model if isinstance(layer, ResidualBlock)]

    @property
    def merge(self) -> nn.Sequential:
        """3x3 convolution behind the blocks, the end of the trunk."""
        first = PART + len(self.blocks)
        return self.model[first : first + PART]

    @property
    def trunk(self) -> nn.Sequential:
        """Stem, blocks and merge: all that works at the size of the input."""
        return self.model[: PART + len(self.blocks) + PART]

    @property
    def upsampling(self) -> nn.Sequential:
        """n times a 3x3 convolution and a pixel shuffle."""
        return self.model[len(self.trunk) : -len(self.output)]

    @property
    def output(self) -> nn.Sequential:
        """7x7 convolution to the image, and tanh where there is no skip."""
        return self.model[-3:]

    @property
    def scale(self) -> int:
        """In-plane enlargement 2^n."""
        return 2 ** int(self.architecture["sampling_times"])

    @property
    def has_skip(self) -> bool:
        """Whether the layers only give what the cubic enlargement lacks."""
        return self.architecture["skip"] == "cubic"

    @property
    def tail(self) -> nn.Sequential:
        """Upsampling and output: all that comes behind the trunk."""
        return self.model[len(self.trunk) :]

    def forward(
        self, clinical: Tensor, noise: Tensor | None = None, share: float | Tensor = 1.0
    ) -> Tensor:
        """Map (N, 1, H, W) to (N, 1, H * 2^n, W * 2^n), both in [-1, 1].

        Args:
            clinical: the image.
            noise: (N, texture, H, W), standard normal, for texture; None for the best estimate.
            share: of the texture, 0 to 1.

        Raises:
            ValueError: noise is given to a network without texture layers.
        """
        if noise is None:
            return self.joined(self.model(clinical), clinical)
        if self.texture is None:
            raise ValueError("noise is given, expected none: this network has no texture layers")
        features = self.trunk(clinical)
        features = features + share * self.texture(torch.cat([features, noise], dim=1))
        return self.joined(self.tail(features), clinical)

    def joined(self, output: Tensor, clinical: Tensor) -> Tensor:
        """The SR image from the layers' `output` and the input that they saw."""
        if not self.has_skip:
            return output
        image = output + enlarge_cubic(clinical, self.scale)
        return image if self.training else image.clamp(-1, 1)


class DownsamplingGenerator(nn.Module):
    """G_B: shrinks a micro-CT slice 2^n times in both in-plane directions.

    Input (N, 1, H, W) in [-1, 1] with H and W multiples of max(4, 2^n) and at least 4 * 2^n;
    output (N, 1, H / 2^n, W / 2^n) in [-1, 1]. Arguments as for `SRGenerator`.
    """

    def __init__(
        self, sampling_times: int = 3, ngf: int = 64, blocks: int = 9, norm: str = "instance"
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(EDGE_PADDING),
            nn.Conv2d(1, ngf, 7),
            make_norm(norm, ngf),
            nn.ReLU(inplace=True),
        ]

        def halve(channels: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
                make_norm(norm, 2 * channels),
                nn.ReLU(inplace=True),
            ]

        layers += halve(ngf) + halve(2 * ngf)
        layers += [ResidualBlock(4 * ngf, norm) for _ in range(blocks)]
        for channels in (4 * ngf, 2 * ngf):
            layers += [
                nn.ConvTranspose2d(
                    channels, channels // 2, 3, stride=2, padding=1, output_padding=1
                ),
                make_norm(norm, channels // 2),
                nn.ReLU(inplace=True),
            ]
        for step in range(sampling_times):
            layers += halve(ngf * 2**step)
        layers += [
            nn.ReflectionPad2d(EDGE_PADDING),
            nn.Conv2d(ngf * 2**sampling_times, 1, 7),
            nn.Tanh(),
        ]
        self.model = nn.Sequential(*layers)

    def forward(self, micro: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, 1, H / 2^n, W / 2^n), both in [-1, 1]."""
        return self.model(micro)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@torch.no_grad()
def all_finite(network: nn.Module) -> bool:
    """Whether no weight is infinite or NaN."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters())


def initialise(network: nn.Module, init_type: str = "normal", init_gain: float = 0.02) -> None:
    """Draw new weights in place: convolutions by `init_type`, biases 0, batch norm around 1.

    Published: normal(0, 0.02). PReLU keeps its one parameter at 0.25.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if init_type == "normal":
                nn.init.normal_(module.weight, 0.0, init_gain)
            elif init_type == "xavier":
                nn.init.xavier_normal_(module.weight, gain=init_gain)
            elif init_type == "kaiming":
                nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in")
            elif init_type == "orthogonal":
                nn.init.orthogonal_(module.weight, gain=init_gain)
            else:
                raise ValueError(
                    f"init_type is {init_type!r}, expected normal, xavier, kaiming or orthogonal"
                )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, init_gain)
            nn.init.zeros_(module.bias)


def start_without_checkerboard(generator: SRGenerator) -> None:
    """Give the four convolution channels that a PixelShuffle puts side by side equal weights.

    The new network then enlarges as nearest neighbour does, and its output has no grid to unlearn
    (ICNR: Aitken et al., arXiv 1707.02937). In place.
    """
    for layer in _shuffled(generator):
        first = layer.weight.detach()[::PHASES]
        layer.weight.data.copy_(first.repeat_interleave(PHASES, dim=0))


@torch.no_grad()
def even_out_shuffles(generator: SRGenerator) -> None:
    """Let the four channels that a PixelShuffle puts side by side answer a flat input alike.

    Where they do not, every flat region gets a grid of the input's pixels, which training removes
    only where it looks. Instance norm behind the convolution takes such means away; without it, the
    sum of each kernel over its taps, and the bias, become their mean over the four. In place; what
    a kernel makes of anything but a constant stays. After a training step it is the nearest such
    network. Measured in docs/benchmark_version_2.md; ICNR (above) makes the four equal at the
    start only.
    """
    for layer in _shuffled(generator):
        taps = layer.weight.unflatten(0, (-1, PHASES))
        means = taps.mean((-2, -1), keepdim=True)
        layer.weight.copy_((taps - means + means.mean(1, keepdim=True)).flatten(0, 1))
        if layer.bias is not None:
            means = layer.bias.view(-1, PHASES).mean(1)
            layer.bias.copy_(means.repeat_interleave(PHASES))


def _shuffled(generator: SRGenerator) -> list[nn.Conv2d]:
    """The convolutions in front of a PixelShuffle."""
    return [layer for layer in generator.upsampling if isinstance(layer, nn.Conv2d)]
