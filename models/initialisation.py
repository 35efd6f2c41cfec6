"""New weights for the networks."""

from __future__ import annotations

from torch import nn

from models.networks import SRGenerator


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
    layers = list(generator.model)
    for layer, shuffle in zip(layers, layers[2:], strict=False):
        if isinstance(shuffle, nn.PixelShuffle) and isinstance(layer, nn.Conv2d):
            phases = shuffle.upscale_factor**2
            first = layer.weight.detach()[::phases]
            layer.weight.data.copy_(first.repeat_interleave(phases, dim=0))
