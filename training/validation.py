"""Scores on held-back slices while training: does it learn what it has not seen?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from models.medical_cycle_gan import MedicalCycleGANModel
from training.held_back import Sample
from util.images.metrics import psnr, ssim
from util.images.resampling import area_average
from util.images.resampling import enlarge as interpolate

SCORES = ("psnr", "ssim", "consistency")


class Validator:
    """Scores a model on samples.

    Args:
        samples: at least one, and at least one of them with its truth.
        scale: k = 2^n.

    Attributes:
        scores: the last ones; None before the first.
        cubic: the scores of cubic spline interpolation, which are to be beaten.
    """

    def __init__(self, samples: Sequence[Sample], scale: int) -> None:
        self.samples = samples
        self.scale = scale
        self.scores: dict[str, float] | None = None
        self.cubic = self._scored(lambda low: interpolate(low, scale, 3).clip(-1, 1))

    def score(
        self,
        model: MedicalCycleGANModel,
        checked: Callable[[Iterable[Sample]], Iterator[Sample]] = iter,
    ) -> dict[str, float]:
        """Scores of G_A, or of its moving average where one is kept; see `_scored`.

        Args:
            model: that is trained.
            checked: gives the samples, and may break off, as `StopRequest.checked` does.
        """
        self.scores = self._scored(lambda low: enlarge(model, low), checked)
        return self.scores

    def verdict(self, preset: str) -> str | None:
        """What to say in the end, where cubic spline interpolation scores higher.

        Args:
            preset: that the model was trained by.
        """
        if self.scores is None:
            return None
        behind = [n for n in ("psnr", "ssim") if self.scores[n] < self.cubic[n]]
        if not behind:
            return None
        advice = "train longer, or take --preset adapt"
        if preset == "adapt":
            advice = (
                "give a lower --lr, see that --windows give tissue the same value in micro-CT and "
                "CT, or use the weights that it started from as they are"
            )
        return (
            f"warning: on held-back data cubic spline interpolation is better in "
            f"{' and '.join(n.upper() for n in behind)} ({describe(self.cubic)}) than this model "
            f"({describe(self.scores)}): {advice} (docs/training.md)"
        )

    def _scored(
        self,
        enlarged: Callable[[np.ndarray], np.ndarray],
        checked: Callable[[Iterable[Sample]], Iterator[Sample]] = iter,
    ) -> dict[str, float]:
        """PSNR and SSIM of restored images, and how far the SR image's average is from its input.

        Args:
            enlarged: (rows, columns) in [-1, 1] -> (rows * k, columns * k).

        Returns:
            psnr in dB from the squared error over all samples with a truth; ssim, their mean, on
            intensities in [0, 2]; consistency, the mean absolute difference of the SR image's area
            average from its input, in HU over clinical CT (over micro-CT in its units where no
            clinical CT is held back).
        """
        restored: list[np.ndarray] = []
        truths: list[np.ndarray] = []
        similar: list[float] = []
        inconsistent: dict[bool, list[float]] = {True: [], False: []}
        for sample in checked(self.samples):
            image = enlarged(sample.low)
            error = np.abs(area_average(image, self.scale) - sample.low).mean() * sample.hu
            inconsistent[sample.high is None].append(float(error))
            if sample.high is not None:
                restored.append(image.ravel())
                truths.append(sample.high.ravel())
                similar.append(ssim(image + 1, sample.high + 1, data_range=2.0))
        return {
            "psnr": psnr(np.concatenate(restored), np.concatenate(truths), data_range=2.0),
            "ssim": float(np.mean(similar)),
            "consistency": float(np.mean(inconsistent[True] or inconsistent[False])),
        }


@torch.no_grad()
def enlarge(model: MedicalCycleGANModel, image: np.ndarray) -> np.ndarray:
    """An image (rows, columns) in [-1, 1] through G_A, or its moving average where one is kept.

    Returns:
        float32 (rows * k, columns * k).
    """
    network = model.G_A if model.average is None else model.average.network
    images = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    was_training = network.training
    network.eval()  # batch norm must not learn from what is held back
    try:
        enlarged: np.ndarray = model.run(network, images.to(model.device))[0, 0].cpu().numpy()
    finally:
        network.train(was_training)
    return enlarged


def describe(scores: Mapping[str, float]) -> str:
    """The scores in one line for the user's eyes."""
    return (
        f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}, "
        f"consistency {scores['consistency']:.1f}"
    )


def is_better(metric: str, score: float, best: float | None) -> bool:
    """Whether a score beats the best so far: more is better but for the consistency error."""
    if best is None:
        return True
    return score < best if metric == "consistency" else score > best
