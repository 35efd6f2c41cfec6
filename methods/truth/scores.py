"""All measures of one case: an enlarged volume against the truth, inside the lung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data.truth_case import TruthCase
from methods.truth.structures import Airspaces, KnownStructures
from util.images.intensity_window import IntensityWindow
from util.images.metrics import intensity_distance, mean_absolute_error, psnr, sharpness, ssim_map
from util.images.resolution import resolution, ring_correlation
from util.images.spectra import faded
from util.images.texture import spectrum_distance
from util.images.trust import FADE

SLICE_FIELDS = ("patient", "group", "method", "slice", "region", "psnr", "ssim", "mae")


class Measure(NamedTuple):
    """What a column of the tables is."""

    what: str
    unit: str
    larger_is_better: bool | None  # None: nearest to 1


# Kind of measure, as the tables are headed -> measure -> what it is.
GROUPS: dict[str, dict[str, Measure]] = {
    "Fidelity": {
        "psnr": Measure("PSNR", "dB", True),
        "psnr_parenchyma": Measure("PSNR in parenchyma", "dB", True),
        "psnr_septa": Measure("PSNR in septa", "dB", True),
        "psnr_vessels": Measure("PSNR in vessels and airways", "dB", True),
        "psnr_nodule": Measure("PSNR in the nodule", "dB", True),
        "ssim": Measure("SSIM", "", True),
        "mae": Measure("mean absolute error", "HU", False),
    },
    "Structures that lie in place": {
        "resolution": Measure("resolution (Fourier ring correlation 0.5)", "mm", False),
        "vessels_f1": Measure("vessels under 1 mm found, F1", "", True),
        "vessels_precision": Measure("vessels under 1 mm, precision", "", True),
        "vessels_recall": Measure("vessels under 1 mm, recall", "", True),
        "septa_f1": Measure("septa found, F1", "", True),
        "septa_precision": Measure("septa, precision", "", True),
        "septa_recall": Measure("septa, recall", "", True),
        "airway_wall": Measure("error of airway wall thickness", "%", False),
        "airway_lumen": Measure("error of airway lumen area", "%", False),
        "nodule_boundary": Measure("distance of the nodule's boundary", "mm", False),
        "nodule_volume": Measure("error of the nodule's volume", "%", False),
    },
    "Texture statistics, which noise can win: compare with the control": {
        "spectrum": Measure("distance of the radial power spectrum", "dB", False),
        "sharpness": Measure("mean gradient over that of thin slices", "", None),
        "intensity": Measure("distance of the histograms", "HU", False),
        "intercept": Measure("error of the mean linear intercept", "%", False),
        "airspace": Measure("error of the airspace fraction", "%", False),
    },
    "Without the truth": {
        "consistency": Measure("difference of the area average from the input", "HU", False),
        "flip": Measure("difference from the mirrored result of the mirrored input", "HU", False),
        "noise_gain": Measure("noise gain", "", False),
        "lattice": Measure("grid, over what is beside it", "dB", False),
    },
}
MEASURES = {name: measure for group in GROUPS.values() for name, measure in group.items()}


@dataclass(frozen=True)
class CaseScores:
    """What one method reached on one case."""

    # patient, group, method: whose
    patient: str
    group: str
    method: str
    measures: dict[str, float]  # by the names of MEASURES; NaN where the patient has none of it
    slices: list[dict[str, float | int | str]]  # one row a slice and region, see SLICE_FIELDS
    # frequencies (cycles/mm) and Fourier ring correlation there
    curve: tuple[np.ndarray, np.ndarray] = field(repr=False)


class Scorer:
    """Scores enlarged volumes of one case.

    Errors are those of the truth, the average over each slice's thickness; texture is compared with
    thin slices, for an average has little. All inside the lung.

    Args:
        case: the patient.
        window: values are clipped to it, in the truth too; its width is the data range.
    """

    def __init__(self, case: TruthCase, window: IntensityWindow) -> None:
        self._case, self._window = case, window
        self._truth = case.truth.clip(window.low, window.high)
        self._thin = case.thin.clip(window.low, window.high)
        self._regions = case.regions
        self._structures = KnownStructures(case)
        spacing = case.spacing[0]
        self._airspaces = Airspaces(self._thin, self._regions["parenchyma"], spacing)
        fade = FADE * case.scale
        self._weights = np.stack([faded(mask, fade) for mask in self._regions["lung"]])

    def score(self, method: str, volume: np.ndarray, trust: dict[str, float]) -> CaseScores:
        """All measures of a volume.

        Args:
            method: what made it.
            volume: HU, of the truth's shape.
            trust: the measures without the truth.
        """
        case, window, truth = self._case, self._window, self._truth
        image = volume.clip(window.low, window.high)
        lung = self._regions["lung"]
        rows = self._slice_rows(method, image)
        measures = dict.fromkeys(MEASURES, float("nan"))
        for name, mask in self._regions.items():
            key = "psnr" if name == "lung" else f"psnr_{name}"
            measures[key] = psnr(image, truth, window.high - window.low, mask)
        pixels = [int(np.count_nonzero(mask)) for mask in lung]
        whole = [float(row["ssim"]) for row in rows if row["region"] == "lung"]
        measures["ssim"] = float(np.average(whole, weights=[count for count in pixels if count]))
        measures["mae"] = mean_absolute_error(image, truth, lung)
        curve = ring_correlation(image, truth, self._weights, case.spacing[0])
        measures["resolution"] = resolution(*curve)
        measures |= self._structures.measures(image)
        measures |= self._texture(image) | trust
        return CaseScores(case.name, case.group, method, measures, rows, curve)

    def _texture(self, image: np.ndarray) -> dict[str, float]:
        lung = self._regions["lung"]
        distances, steep = [], []
        for one, thin, mask, weights in zip(image, self._thin, lung, self._weights, strict=True):
            if mask.any():
                distances.append(spectrum_distance(one, thin, weights))
                steep.append(sharpness(one, thin, mask))
        intercept, airspace = self._airspaces.errors(image)
        return {
            "spectrum": float(np.mean(distances)),
            "sharpness": float(np.mean(steep)),
            "intensity": intensity_distance(image, self._thin, lung),
            "intercept": intercept,
            "airspace": airspace,
        }

    def _slice_rows(self, method: str, image: np.ndarray) -> list[dict[str, float | int | str]]:
        """PSNR, SSIM and mean absolute error of each slice in each region that it shows."""
        window = self._window
        width = window.high - window.low
        rows: list[dict[str, float | int | str]] = []
        for index, (one, wanted) in enumerate(zip(image, self._truth, strict=True)):
            # Shifted, so that the window's low end is SSIM's zero.
            similarity = ssim_map(one - window.low, wanted - window.low, width)
            for region, volume_mask in self._regions.items():
                mask = volume_mask[index]
                if not mask.any():
                    continue
                row: dict[str, float | int | str] = {
                    "patient": self._case.name,
                    "group": self._case.group,
                    "method": method,
                    "slice": index,
                    "region": region,
                    "psnr": psnr(one, wanted, width, mask),
                    "ssim": float(similarity[mask].mean()),
                    "mae": mean_absolute_error(one, wanted, mask),
                }
                rows.append(row)
        return rows


def of_method(scores: Sequence[CaseScores], method: str, measure: str) -> list[float]:
    """One value a patient."""
    return [one.measures[measure] for one in scores if one.method == method]
