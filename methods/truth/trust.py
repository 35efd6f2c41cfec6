"""The figures that any scan can give, beside those of the truth: `util/images/trust.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.truth_case import TruthCase
from methods.truth.opponents import Method
from util.images.trust import SMALLEST_AREA, consistency, flip, lattice, noise_gain


def trust_measures(method: Method, case: TruthCase, enlarged: np.ndarray) -> dict[str, float]:
    """Consistency over all slices; flip, noise gain and lattice in the middle one; inside the lung.

    Costs three slices' time: a slice by itself may come out otherwise than among others.

    Args:
        method: what made `enlarged`.
        case: of what.
        enlarged: HU, on the truth's grid.

    Returns:
        By the names of MEASURES; NaN where the lung's part is too small to tell.
    """
    pairs = zip(enlarged, case.clinical, case.mask, strict=True)
    errors = [consistency(one, low, mask) for one, low, mask in pairs if mask.any()]
    found = {"consistency": float(np.mean(errors)) if errors else float("nan")}
    middle = len(enlarged) // 2
    image, mask = case.clinical[middle], case.mask[middle]
    if np.count_nonzero(mask) < SMALLEST_AREA:
        return found

    def redo(changed: np.ndarray, turned: bool = False) -> np.ndarray:
        one = slice(middle, middle + 1)
        alone = replace(
            case,
            clinical=changed[None],
            mask=np.ascontiguousarray(mask[None, :, ::-1]) if turned else mask[None],
            truth=case.truth[one],
            thin=case.thin[one],
            labels=case.labels[one],
        )
        again: np.ndarray = method.enlarge(alone)[0]
        return again

    result = redo(image)
    return {
        **found,
        "flip": flip(lambda turned: redo(turned, True), result, image, mask),
        "noise_gain": noise_gain(redo, result, image, mask),
        "lattice": lattice(result, mask).decibel,
    }
