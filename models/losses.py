"""The formulas of the losses; models/medical_cycle_gan.py: generator_losses puts them together.

Paper: J. Med. Imaging 9(2) 024003 (2022), loss sections; docs/method.md sets each formula beside
its function.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.line_filters import gaussian_weights, weighted_neighbours

SSIM_REACH = 5  # pixels on each side: a window of 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
CONSTANT_RANGE = 0.01  # of [-1, 1]: bf16 rounds it to one or two values
CONSTANT_NOISE = 0.01
MOST_NOISE = 0.04  # of another look: 30 HU in a window of 1500 HU
GRADIENT_PENALTY_WEIGHT = 10.0  # Gulrajani et al. 2017, WGAN-GP


class GANLoss(nn.Module):
    """Adversarial loss on discriminator scores of any shape; returns a scalar.

    Args:
        mode: lsgan (mean squared distance to 1 or 0; published), vanilla (cross-entropy on
            logits) or wgangp (the critic's mean score with its sign).
    """

    def __init__(self, mode: str = "lsgan") -> None:
        super().__init__()
        if mode not in ("lsgan", "vanilla", "wgangp"):
            raise ValueError(f"gan_mode is {mode!r}, expected lsgan, vanilla or wgangp")
        self.mode = mode

    def forward(self, scores: Tensor, real: bool) -> Tensor:
        """Loss of `scores` when the discriminator should have called them `real`."""
        if self.mode == "wgangp":
            return -scores.mean() if real else scores.mean()
        target = torch.full_like(scores, 1.0 if real else 0.0)
        if self.mode == "lsgan":
            return F.mse_loss(scores, target)
        return F.binary_cross_entropy_with_logits(scores, target)

    def share_right(self, of_real: Tensor, of_fake: Tensor) -> Tensor:
        """Share of scores on the right side of the border, real and generated weighted alike.

        The border is 0.5 for lsgan, half way between its targets, and 0 for vanilla and wgangp
        (whose critic need not keep to it). 0.5: it cannot tell; 1: it always can.
        """
        border = 0.5 if self.mode == "lsgan" else 0.0
        right = (of_real > border).float().mean() + (of_fake < border).float().mean()
        return right.detach() / 2


def random_crop(images: Tensor, edge: int) -> Tensor:
    """The same random square of all images (N, C, H, W), `edge` pixels wide.

    The place comes from torch's CPU generator, so that no GPU has to be waited for.
    """
    row = int(torch.randint(images.shape[-2] - edge + 1, ()))
    column = int(torch.randint(images.shape[-1] - edge + 1, ()))
    return images[..., row : row + edge, column : column + edge]


def noise_where_constant(images: Tensor) -> Tensor:
    """Give generated images that are all but constant a little noise; others stay as they are.

    Where a generator has collapsed to one value, instance norm in the next one multiplies the
    gradient by 1 / sqrt(eps) in each layer until it overflows, and nothing can be learned any more.
    The data set does the same with constant patches (`data.patches.noise_if_constant`).

    Args:
        images: (N, C, H, W) in [-1, 1].
    """
    low, high = (edge((1, 2, 3), keepdim=True) for edge in (images.amin, images.amax))
    noise = CONSTANT_NOISE * torch.randn_like(images)
    return torch.where(high - low < CONSTANT_RANGE, images + noise, images)


def another_look(images: Tensor) -> Tensor:
    """The same tissue seen once more: mirrored left to right, with white noise added.

    Tissue has no preferred side, and another scan of it has another noise: what is made of either
    look should be the same image, mirrored. Not of the paper; util/images/trust.py measures how far
    it is (flip, noise gain).

    Args:
        images: (N, C, H, W) in [-1, 1].

    Returns:
        The same shape and range; the noise of each image has a standard deviation of its own, drawn
        evenly up to `MOST_NOISE`.
    """
    level = MOST_NOISE * torch.rand(images.shape[0], 1, 1, 1, device=images.device)
    return (images.flip(-1) + level * torch.randn_like(images)).clamp(-1, 1)


def lattice_power(differences: Tensor, scale: int) -> Tensor:
    """The grid of the input's pixels that images leave: its mean power.

    What is wrong at the same place within every input pixel is a grid; its mean over them is taken
    for each image. Not of the paper; util/images/trust.py measures what is left of it (lattice).

    Args:
        differences: (N, C, H, W), enlarged images without their truth.
        scale: pixels of an enlarged image along an input pixel.
    """
    count, channels, height, width = differences.shape
    cells = differences.view(count, channels, height // scale, scale, width // scale, scale)
    pattern = cells.mean((2, 4))
    return (pattern - pattern.mean((-2, -1), keepdim=True)).square().mean()


def finite(images: Tensor) -> Tensor:
    """Images with 0 for NaN, and the ends of [-1, 1] for what is infinite."""
    return torch.nan_to_num(images, nan=0.0, posinf=1.0, neginf=-1.0)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP penalty: 10 * mean (|grad D(x)| - 1)^2 at random points between real and fake.

    Args:
        real, fake: (N, 1, H, W) in [-1, 1]; `fake` without gradient history.
    """
    share = torch.rand(real.shape[0], 1, 1, 1, device=real.device, dtype=real.dtype)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    scores = discriminator(between)
    (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    norm = gradient.flatten(1).add(1e-16).norm(2, dim=1)
    return GRADIENT_PENALTY_WEIGHT * ((norm - 1) ** 2).mean()


def ssim(image: Tensor, reference: Tensor, data_range: float) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) with an 11x11 Gaussian window, sigma 1.5.

    The window is applied with zero padding 5, so that the map is as large as the image, as in the
    published code. C1 = (0.01 * data_range)^2, C2 = (0.03 * data_range)^2.

    Args:
        image, reference: (N, 1, H, W).
        data_range: span of the values; 2 for [-1, 1]. The published code uses 1.

    Returns:
        Scalar, at most 1 (equal images).
    """
    planes = torch.cat(
        [image, reference, image * image, reference * reference, image * reference], dim=1
    )
    planes = F.pad(planes, [SSIM_REACH] * 4)
    planes = weighted_neighbours(planes, gaussian_weights(SSIM_SIGMA, SSIM_REACH))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = planes.unbind(1)
    variance_x = mean_xx - mean_x**2
    variance_y = mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return similarity.mean()


def pool(micro: Tensor, scale: int) -> Tensor:
    """P: mean over scale x scale blocks, (N, 1, H, W) to (N, 1, H / scale, W / scale)."""
    return F.avg_pool2d(micro, scale)


def enlarge_nearest(clinical: Tensor, scale: int) -> Tensor:
    """N: repeat each pixel, (N, 1, H, W) to (N, 1, H * scale, W * scale)."""
    return F.interpolate(clinical, scale_factor=scale, mode="nearest")


def enlarge_identity(clinical: Tensor, scale: int, mode: str) -> Tensor:
    """U of the identity loss idt_B: bilinear with aligned corners (8x) or nearest (4x)."""
    if mode == "nearest":
        return enlarge_nearest(clinical, scale)
    return F.interpolate(clinical, scale_factor=scale, mode="bilinear", align_corners=True)
