"""Widths of Gaussians: full width at half maximum, standard deviation, and the MTF's half."""

from __future__ import annotations

import math

FWHM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))
HALF_OF_GAUSSIAN = 2 * math.log(2) / math.pi  # frequency where the MTF is a half, times full width
