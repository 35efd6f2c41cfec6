"""A history of generated images for the discriminators (Shrivastava et al. 2017)."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Keeps up to `size` generated images and hands back a mix of new and old ones.

    Until it is full every image is stored and returned. Then each query returns, with
    probability 1/2, the new image, else a stored one, whose place the new image takes.

    Args:
        size: capacity in images (50 in the paper); 0 hands every image straight back.
        seed: of the pool's own random numbers, so that nothing else disturbs them.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self.generator = random.Random(seed)

    def query(self, images: Tensor) -> Tensor:
        """Map a batch (N, C, H, W) without gradient history to a batch of the same shape."""
        if self.size == 0:
            return images
        returned = []
        for image in images.split(1):
            if len(self.images) < self.size:
                self.images.append(image.clone())  # a view would keep its whole batch
                returned.append(image)
            elif self.generator.random() < 0.5:
                place = self.generator.randrange(self.size)
                returned.append(self.images[place])
                self.images[place] = image.clone()
            else:
                returned.append(image)
        return torch.cat(returned)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: the images and the random state."""
        return {
            "images": [image.detach().cpu() for image in self.images],
            "generator": self.generator.getstate(),
        }

    def load_state_dict(self, state: dict[str, Any], edge: int, device: torch.device) -> bool:
        """Load a state made by `state_dict`, with the images on `device`.

        Returns:
            Whether its images have `edge` pixels a side; others are forgotten, since a batch holds
            images of one size.
        """
        fits = all(image.shape[-2:] == (edge, edge) for image in state["images"])
        kept = state["images"][: self.size] if fits else []
        self.images = [image.to(device) for image in kept]
        version, words, gauss = state["generator"]
        self.generator.setstate((version, tuple(words), gauss))
        return fits
