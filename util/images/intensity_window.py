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
    """Linear map of [low, high] in physical units (HU for clinical CT) onto [-1, 1].

    Raises:
        UserError: `high` is not above `low`, or either is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.high > self.low):
            raise UserError(
                f"intensity window {self.low:g}:{self.high:g} is empty: "
                "give LOW:HIGH with LOW below HIGH, for example -1000:500"
            )

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """Physical values of any shape -> float32 in [-1, 1]; values outside are clipped."""
        scaled = np.asarray(values, dtype=np.float32) - np.float32(self.low)
        scaled *= np.float32(2.0 / (self.high - self.low))
        scaled -= np.float32(1.0)
        return np.clip(scaled, -1.0, 1.0, out=scaled)

    def to_physical(self, unit: np.ndarray) -> np.ndarray:
        """Values in [-1, 1] of any shape -> float32 physical values; inverse of `to_unit`."""
        values = np.asarray(unit, dtype=np.float32) + np.float32(1.0)
        values *= np.float32((self.high - self.low) / 2.0)
        values += np.float32(self.low)
        return values

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Bool array, shape of `values`: True where `to_unit` clips, so the value is lost."""
        values = np.asarray(values)
        return (values < self.low) | (values > self.high)

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for checkpoints and run records."""
        return {"low": float(self.low), "high": float(self.high)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> IntensityWindow:
        """Inverse of `as_dict`."""
        return cls(low=float(stored["low"]), high=float(stored["high"]))
