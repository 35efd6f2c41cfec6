"""The linear map between physical values and the networks' [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from util.errors import UserError


@dataclass(frozen=True)
class IntensityWindow:
    """Linear map of [low, high] in physical units (HU for clinical CT) onto [unit_low, 1].

    Args:
        low, high: ends of the window.
        unit_low: what the lower end becomes; 0 for weights of the original's public setting.

    Raises:
        UserError: `high` is not above `low`, or either is not finite.
    """

    low: float
    high: float
    unit_low: float = -1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.high > self.low):
            raise UserError(
                f"intensity window {self.low:g}:{self.high:g} is empty: "
                "give LOW:HIGH with LOW below HIGH, for example -1000:500"
            )

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """Physical values of any shape -> float32 in [unit_low, 1]; others are clipped."""
        scaled = np.asarray(values, dtype=np.float32) - np.float32(self.low)
        scaled *= np.float32((1.0 - self.unit_low) / (self.high - self.low))
        scaled += np.float32(self.unit_low)
        return np.clip(scaled, self.unit_low, 1.0, out=scaled)

    def to_physical(self, unit: np.ndarray) -> np.ndarray:
        """Values in [unit_low, 1] of any shape -> float32 physical values; inverse of `to_unit`."""
        values = np.asarray(unit, dtype=np.float32) - np.float32(self.unit_low)
        values *= np.float32((self.high - self.low) / (1.0 - self.unit_low))
        values += np.float32(self.low)
        return values

    def standard(self, unit: np.ndarray) -> np.ndarray:
        """Values of `to_unit` on [-1, 1], whatever the lower end becomes."""
        if self.unit_low == -1:
            return unit
        return (unit - self.unit_low) * (2.0 / (1.0 - self.unit_low)) - 1.0

    @property
    def per_unit(self) -> float:
        """Physical units that a step of 1 of `to_unit` stands for."""
        return (self.high - self.low) / (1.0 - self.unit_low)

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Bool array, shape of `values`: True where `to_unit` clips, so the value is lost."""
        values = np.asarray(values)
        return (values < self.low) | (values > self.high)

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for checkpoints and run records."""
        ends = {"low": float(self.low), "high": float(self.high)}
        return ends if self.unit_low == -1 else {**ends, "unit_low": self.unit_low}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> IntensityWindow:
        """Inverse of `as_dict`."""
        low, high = float(stored["low"]), float(stored["high"])
        return cls(low, high, float(stored.get("unit_low", -1)))
