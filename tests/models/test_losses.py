from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from models.losses import (
    MOST_NOISE,
    GANLoss,
    another_look,
    enlarge_identity,
    enlarge_nearest,
    finite,
    gradient_penalty,
    lattice_power,
    noise_where_constant,
    pool,
    random_crop,
    ssim,
)


def test_gan_losses_of_known_scores() -> None:
    scores = torch.tensor([[[[0.0, 2.0]]]])
    assert float(GANLoss("lsgan")(scores, True)) == pytest.approx(1.0)
    assert float(GANLoss("lsgan")(scores, False)) == pytest.approx(2.0)
    assert float(GANLoss("wgangp")(scores, True)) == pytest.approx(-1.0)
    assert float(GANLoss("wgangp")(scores, False)) == pytest.approx(1.0)
    vanilla = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert float(GANLoss("vanilla")(scores, True)) == pytest.approx(vanilla)
    with pytest.raises(ValueError, match="gan_mode is 'hinge'"):
        GANLoss("hinge")


def test_gradient_penalty_of_a_linear_critic() -> None:
    class Sum(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return 0.5 * image.sum(dim=(1, 2, 3))

    # |gradient| = 0.5 * sqrt(16) = 2 everywhere, so the penalty is 10 * (2 - 1)^2.
    image = torch.rand(3, 1, 4, 4)
    assert float(gradient_penalty(Sum(), image, -image)) == pytest.approx(10.0, rel=1e-5)


def direct_ssim(image: Tensor, reference: Tensor, data_range: float) -> float:
    """SSIM by one full 11x11 window with zero padding, straight from the formula."""
    position = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(position**2) / (2 * 1.5**2))
    line /= line.sum()
    window = (line[:, None] * line[None]).view(1, 1, 11, 11)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, window, padding=5)

    x, y = image.double(), reference.double()
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return float((top / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_equals_the_formula(data_range: float) -> None:
    torch.manual_seed(1)
    image, reference = torch.rand(2, 1, 24, 31) * 2 - 1, torch.rand(2, 1, 24, 31) * 2 - 1
    blend = 0.7 * image + 0.3 * reference
    expected = direct_ssim(blend, reference, data_range)
    assert float(ssim(blend, reference, data_range)) == pytest.approx(expected, abs=1e-5)
    assert float(ssim(image, image, data_range)) == pytest.approx(1.0, abs=1e-5)


def test_ssim_agrees_with_scikit_image_away_from_the_border() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (64, 64)).astype(np.float32)
    reference = (0.8 * image + 0.2 * rng.uniform(-1, 1, (64, 64))).astype(np.float32)
    _, similarity = structural_similarity(
        image, reference, data_range=2.0, gaussian_weights=True, use_sample_covariance=False,
        sigma=1.5, full=True,
    )  # fmt: skip
    # A large image of which the padding's influence is cut off: compare on the inner mean.
    inner = similarity[5:-5, 5:-5].mean()
    valid_x = torch.from_numpy(image)[None, None]
    valid_y = torch.from_numpy(reference)[None, None]
    whole = float(ssim(valid_x, valid_y, 2.0)) * 64 * 64
    border = whole - inner * 54 * 54
    assert abs(border / (64 * 64 - 54 * 54) - inner) < 0.1
    assert whole / 64**2 == pytest.approx(inner, abs=0.03)


def test_ssim_has_a_gradient() -> None:
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    (1 - ssim(image, torch.rand(1, 1, 16, 16), 2.0)).backward()
    assert image.grad is not None
    assert bool(torch.isfinite(image.grad).all())


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_pooling_undoes_nearest_enlargement(scale: int) -> None:
    clinical = torch.rand(2, 1, 5, 6)
    assert torch.allclose(pool(enlarge_nearest(clinical, scale), scale), clinical, atol=1e-6)


def test_identity_enlargement_modes() -> None:
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    aligned = enlarge_identity(ramp, 8, "bilinear")
    assert aligned.shape == (1, 1, 32, 32)
    # Aligned corners: the ends are kept and the ramp stays a ramp.
    assert torch.allclose(aligned[0, 0, 0], torch.linspace(0, 3, 32), atol=1e-5)
    assert torch.equal(enlarge_identity(ramp, 4, "nearest"), enlarge_nearest(ramp, 4))


def test_scores_on_the_right_side_are_counted() -> None:
    of_real, of_fake = torch.tensor([0.9, 0.6, 0.4, 2.0]), torch.tensor([0.1, 0.2, 0.7, -1.0])
    assert float(GANLoss("lsgan").share_right(of_real, of_fake)) == 0.75
    assert float(GANLoss("vanilla").share_right(of_real, of_fake)) == 0.625
    assert float(GANLoss("lsgan").share_right(torch.ones(3), torch.zeros(5))) == 1
    blind = torch.full((4,), 0.7)
    assert float(GANLoss("lsgan").share_right(blind, blind)) == 0.5


def test_a_random_crop_is_a_part_of_all_images_and_reaches_everywhere() -> None:
    images = torch.arange(2 * 6 * 7).reshape(2, 1, 6, 7)
    torch.manual_seed(0)
    corners = set()
    for _ in range(300):
        crop = random_crop(images, 4)
        assert crop.shape == (2, 1, 4, 4)
        assert torch.equal(crop[1] - crop[0], torch.full((1, 4, 4), 42))
        row, column = divmod(int(crop[0, 0, 0, 0]), 7)
        assert torch.equal(crop[0, 0], images[0, 0, row : row + 4, column : column + 4])
        corners.add((row, column))
    assert corners == {(row, column) for row in range(3) for column in range(4)}


def test_only_constant_images_get_noise() -> None:
    flat = torch.full((1, 1, 8, 8), -1.0)
    flat[0, 0, 3, 3] += 1e-4
    grey = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    found = noise_where_constant(torch.cat([flat, grey]))
    assert torch.equal(found[1], grey[0])
    assert 0.005 < float((found[0] - flat[0]).std()) < 0.02


def test_finite_stays_within_the_range_of_images() -> None:
    images = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.5])
    assert finite(images).tolist() == [0.0, 1.0, -1.0, 0.5]


def test_another_look_is_mirrored_and_noised() -> None:
    torch.manual_seed(0)
    images = torch.linspace(-0.5, 0.5, 64).expand(200, 1, 64, 64)
    added = another_look(images) - images.flip(-1)
    levels = added.std((1, 2, 3))
    assert float(levels.max()) == pytest.approx(MOST_NOISE, rel=0.1)
    assert float(levels.mean()) == pytest.approx(MOST_NOISE / 2, rel=0.1)
    assert another_look(torch.ones(9, 1, 8, 8)).max() <= 1


def test_lattice_power_is_that_of_the_grid_alone() -> None:
    torch.manual_seed(0)
    tissue = torch.randn(2, 1, 6, 6).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert float(lattice_power(tissue, 4)) == pytest.approx(0, abs=1e-12)
    grid = torch.randn(4, 4)
    grid -= grid.mean()
    with_grid = tissue + 0.1 * grid.repeat(6, 6)
    expected = float(grid.square().mean()) / 100
    assert float(lattice_power(with_grid, 4)) == pytest.approx(expected, rel=1e-4)
    # Of one image alone, whatever the other one has.
    assert float(lattice_power(torch.cat([with_grid, -with_grid]), 4)) == pytest.approx(
        expected, rel=1e-4
    )
