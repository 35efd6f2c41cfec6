"""A phantom patient made of arrays, small and with known answers."""

from __future__ import annotations

import numpy as np

from data.truth_case import LABELS, TruthCase
from util.images.texture import radial_power_spectrum


def small_case(seed: int = 0, disease: str = "solid_nodule") -> TruthCase:
    """Random texture of lung with a nodule and a vessel; the clinical CT is its area average."""
    generator = np.random.default_rng(seed)
    truth = generator.choice([-960.0, -760.0], (2, 32, 32), p=[0.7, 0.3])
    labels = np.full(truth.shape, LABELS["parenchyma"], np.uint8)
    labels[:, 4:12, 4:12] = LABELS["nodule"]
    labels[:, 20:24] = LABELS["vessel"]
    truth[labels == LABELS["nodule"]] = 30
    truth[labels == LABELS["vessel"]] = 50
    clinical = truth.reshape(2, 16, 2, 16, 2).mean((2, 4))
    return TruthCase(
        f"seed{seed}",
        disease,
        clinical.astype(np.float32),
        np.ones(clinical.shape, bool),
        truth.astype(np.float32),
        truth.astype(np.float32),
        labels,
        np.diag([0.25, 0.25, 0.5, 1.0]),
        2,
    )


def spectrum_slope(image: np.ndarray, spacing: float, low: float, high: float) -> float:
    """Exponent b of power = a * frequency^b between two frequencies in cycles/mm."""
    frequency, power = radial_power_spectrum(image, spacing)
    inside = (frequency >= low) & (frequency <= high)
    assert inside.sum() > 2
    slope, _ = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)
    return float(slope)
