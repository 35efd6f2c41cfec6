"""All measures of one phantom patient: an enlarged volume against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.phantom.case import PhantomCase
from util.images.intensity_window import IntensityWindow
from util.images.metrics import (
    inconsistency,
    intensity_distance,
    mean_absolute_error,
    psnr,
    sharpness,
    ssim_map,
)
from util.images.texture import (
    airspace_fraction,
    airspace_threshold,
    mean_linear_intercept,
    nodule_volume,
    spectrum_distance,
)

SLICE_FIELDS = ("patient", "disease", "method", "slice", "region", "psnr", "ssim", "mae")
# Measure -> what it is, its unit, and whether larger is better (None: nearest to 1).
MEASURES: dict[str, tuple[str, str, bool | None]] = {
    "psnr": ("PSNR", "dB", True),
    "psnr_parenchyma": ("PSNR in parenchyma", "dB", True),
    "psnr_vessels": ("PSNR in vessels and airways", "dB", True),
    "psnr_nodule": ("PSNR in the nodule", "dB", True),
    "ssim": ("SSIM", "", True),
    "mae": ("mean absolute error", "HU", False),
    "consistency": ("difference of the area average from the input", "HU", False),
    "spectrum": ("distance of the radial power spectrum", "dB", False),
    "sharpness": ("mean gradient over the truth's", "", None),
    "intensity": ("distance of the histograms", "HU", False),
    "intercept": ("error of the mean linear intercept", "%", False),
    "airspace": ("error of the airspace fraction", "%", False),
    "nodule_volume": ("error of the nodule's volume", "%", False),
}


@dataclass(frozen=True)
class CaseScores:
    """What one method reached on one patient."""

    # patient, disease, method: whose
    patient: str
    disease: str
    method: str
    measures: dict[str, float]  # by the names of MEASURES; NaN where the patient has none of it
    slices: list[dict[str, float | int | str]]  # one row a slice and region, see SLICE_FIELDS


def score_case(
    case: PhantomCase, enlarged: Mapping[str, np.ndarray], window: IntensityWindow
) -> list[CaseScores]:
    """Score enlarged volumes of one patient.

    Args:
        case: the patient.
        enlarged: HU of the truth's shape, by the method's name.
        window: values are clipped to it, in the truth too; its width is the data range.

    Returns:
        One entry a method, in their order.
    """
    truth = case.truth.clip(window.low, window.high)
    regions = case.regions
    airspaces = Airspaces(truth, regions["parenchyma"], case.spacing[0])
    nodule = Nodule.of(truth, regions, case.spacing)
    found = []
    for method, volume in enlarged.items():
        image = volume.clip(window.low, window.high)
        rows = slice_rows(case, method, image, truth, window)
        measures = dict.fromkeys(MEASURES, float("nan"))
        width = window.high - window.low
        measures["psnr"] = psnr(image, truth, width)
        for name, mask in regions.items():
            if name != "all":
                measures[f"psnr_{name}"] = psnr(image, truth, width, mask)
        whole = [row for row in rows if row["region"] == "all"]
        measures["ssim"] = float(np.mean([float(row["ssim"]) for row in whole]))
        measures["mae"] = mean_absolute_error(image, truth)
        pairs = list(zip(image, truth, strict=True))
        measures["spectrum"] = float(np.mean([spectrum_distance(*pair) for pair in pairs]))
        measures["sharpness"] = float(np.mean([sharpness(*pair) for pair in pairs]))
        measures["intensity"] = intensity_distance(image, truth)
        low = case.clinical.clip(window.low, window.high)
        measures["consistency"] = float(
            np.mean([inconsistency(a, b, case.scale) for a, b in zip(image, low, strict=True)])
        )
        measures["intercept"], measures["airspace"] = airspaces.errors(image)
        if nodule is not None:
            measures["nodule_volume"] = nodule.error(image)
        found.append(CaseScores(case.name, case.disease, method, measures, rows))
    return found


def slice_rows(
    case: PhantomCase,
    method: str,
    image: np.ndarray,
    truth: np.ndarray,
    window: IntensityWindow,
) -> list[dict[str, float | int | str]]:
    """PSNR, SSIM and mean absolute error of each slice in each region that it shows."""
    width = window.high - window.low
    rows: list[dict[str, float | int | str]] = []
    for index, (one, wanted) in enumerate(zip(image, truth, strict=True)):
        # Shifted, so that the window's low end is SSIM's zero.
        similarity = ssim_map(one - window.low, wanted - window.low, width)
        for region, volume_mask in case.regions.items():
            mask = volume_mask[index]
            if not mask.any():
                continue
            row: dict[str, float | int | str] = {
                "patient": case.name,
                "disease": case.disease,
                "method": method,
                "slice": index,
                "region": region,
                "psnr": psnr(one, wanted, width, mask),
                "ssim": float(similarity[mask].mean()),
                "mae": mean_absolute_error(one, wanted, mask),
            }
            rows.append(row)
    return rows


class Airspaces:
    """Airspaces of the parenchyma, told from tissue by the truth's own threshold."""

    def __init__(self, truth: np.ndarray, parenchyma: np.ndarray, spacing: float) -> None:
        self._mask, self._spacing = parenchyma, spacing
        self.threshold = airspace_threshold(truth, parenchyma)
        self.intercept = self._intercept(truth)
        self.fraction = airspace_fraction(truth, parenchyma, self.threshold)

    def errors(self, image: np.ndarray) -> tuple[float, float]:
        """Errors in percent of the mean linear intercept (relative) and the airspace fraction
        (of the parenchyma)."""
        intercept = 100 * abs(self._intercept(image) / self.intercept - 1)
        fraction = airspace_fraction(image, self._mask, self.threshold)
        return intercept, 100 * abs(fraction - self.fraction)

    def _intercept(self, image: np.ndarray) -> float:
        return mean_linear_intercept(image, self._mask, self.threshold, self._spacing)


@dataclass(frozen=True)
class Nodule:
    """The nodule, told from lung half way between their medians in the truth."""

    mask: np.ndarray
    other: np.ndarray
    threshold: float
    spacing: tuple[float, float, float]
    volume: float

    @staticmethod
    def of(
        truth: np.ndarray, regions: Mapping[str, np.ndarray], spacing: tuple[float, float, float]
    ) -> Nodule | None:
        """The patient's nodule, if any; `regions` as `PhantomCase.regions` gives them."""
        if "nodule" not in regions:
            return None
        mask = regions["nodule"]
        other = regions.get("vessels", np.zeros_like(mask))
        middle = (np.median(truth[mask]) + np.median(truth[regions["parenchyma"]])) / 2
        threshold = float(middle)
        volume = nodule_volume(truth, mask, other, threshold, spacing)
        return Nodule(mask, other, threshold, spacing, volume)

    def error(self, image: np.ndarray) -> float:
        """Relative error of the volume in percent."""
        found = nodule_volume(image, self.mask, self.other, self.threshold, self.spacing)
        return 100 * abs(found / self.volume - 1)


def of_method(scores: Sequence[CaseScores], method: str, measure: str) -> list[float]:
    """One value a patient."""
    return [one.measures[measure] for one in scores if one.method == method]
