"""How methods do on scanners that they were not made for: dB inside the lung, scanner by scanner.

The truth is shrunk by area average, blurred by a Gaussian and given noise of spectra that no
training draws; and patients are scanned anew with pixels of other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from data.truth_case import TruthCase
from data.windows import CLINICAL_WINDOW
from methods.truth.figures import draw_heat_map
from methods.truth.opponents import Method
from methods.truth.tables import as_csv
from util.images.metrics import psnr
from util.images.point_spread import FWHM_TO_SIGMA
from util.images.resampling import area_average
from util.intervals import Interval, mean_interval

BLURS = (0.0, 1.2, 2.0, 2.8)  # full width at half maximum, clinical pixels
NOISES = (0.0, 25.0, 60.0)  # standard deviation, HU
PIXELS = (0.4, 0.6, 0.75, 0.9)  # mm
STEP = 4  # slices of a patient from one to the next
NOISE_PEAK = 0.18  # cycles a pixel, where band-pass noise is strongest
SHARP_PEAK = 0.35  # the same of a kernel that lifts edges
STREAKS = 3.0  # by how much noise is stronger across than along streaks


def _band_pass(down: np.ndarray, across: np.ndarray) -> np.ndarray:
    frequency = np.hypot(down, across)
    return frequency * np.exp(-((frequency / NOISE_PEAK) ** 2) / 2)


def _sharp(down: np.ndarray, across: np.ndarray) -> np.ndarray:
    frequency = np.hypot(down, across)
    return frequency**2 * np.exp(-((frequency / SHARP_PEAK) ** 4))


def _streaks(down: np.ndarray, across: np.ndarray) -> np.ndarray:
    frequency = np.hypot(down, across)
    steep = np.divide(down**2, frequency**2, out=np.zeros_like(frequency), where=frequency > 0)
    return _band_pass(down, across) * (1 + STREAKS * steep)


# Name -> amplitude at frequencies (down, across) in cycles a pixel. None of them is among those of
# models/scanner_model.py.
SPECTRA: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "band-pass": _band_pass,
    "edge-lifting": _sharp,
    "streaks": _streaks,
}


@dataclass(frozen=True)
class Scanner:
    """One cell of the matrix."""

    blur: float = 0.0  # full width at half maximum, clinical pixels
    noise: float = 0.0  # standard deviation, HU
    spectrum: str = "band-pass"
    # mm, where patients are scanned anew, by the phantom's own kernel and noise; None elsewhere
    pixel: float | None = None

    @property
    def name(self) -> str:
        """In words."""
        if self.pixel is not None:
            return f"pixels of {self.pixel:g} mm"
        text = f"{self.blur:g} px, {self.noise:g} HU"
        return text if self.spectrum == "band-pass" else f"{text}, {self.spectrum} noise"


GRID = tuple(Scanner(blur, noise) for blur in BLURS for noise in NOISES)
OTHER_SPECTRA = tuple(
    Scanner(blur, noise, spectrum)
    for spectrum in ("edge-lifting", "streaks")
    for blur in (1.2, 2.0)
    for noise in NOISES[1:]
)
OTHER_PIXELS = {Scanner(pixel=pixel): pixel for pixel in PIXELS}


def coloured_noise(
    shape: tuple[int, ...], generator: np.random.Generator, spectrum: str = "band-pass"
) -> np.ndarray:
    """Noise of standard deviation 1 and a spectrum of SPECTRA, (rows, columns)."""
    down, across = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    amplitude = SPECTRA[spectrum](*np.broadcast_arrays(down, across))
    noise: np.ndarray = np.fft.ifft2(np.fft.fft2(generator.standard_normal(shape)) * amplitude).real
    return noise / noise.std()


def seen_by(scanner: Scanner, average: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An area average in HU, (rows, columns), as a scanner shows it; float32."""
    seen = ndimage.gaussian_filter(average, scanner.blur * FWHM_TO_SIGMA, mode="reflect")
    noise = coloured_noise(seen.shape, generator, scanner.spectrum)
    return (seen + scanner.noise * noise).astype(np.float32)


def scanned(case: TruthCase, scanner: Scanner, seed: int = 0) -> TruthCase:
    """Every STEP-th slice of a case that shows lung, seen by another scanner."""
    lung = case.regions["lung"]
    chosen = np.flatnonzero(lung.any(axis=(1, 2)))[::STEP]
    generator = np.random.default_rng([seed, int(10 * scanner.blur), int(scanner.noise)])
    truth = case.truth[chosen]
    seen = [seen_by(scanner, area_average(one, case.scale), generator) for one in truth]
    return replace(
        case,
        clinical=np.stack(seen),
        mask=case.mask[chosen],
        truth=truth,
        thin=case.thin[chosen],
        labels=case.labels[chosen],
    )


class ScannerMatrix:
    """PSNR of methods on scanners, patient by patient.

    Args:
        methods: models and baselines; others are left out.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = [one for one in methods if one.kind in ("model", "baseline")]
        self._scores: dict[Scanner, dict[str, list[float]]] = {}

    def add(self, scanner: Scanner, case: TruthCase) -> None:
        """Score a case that was seen by a scanner."""
        low, high = CLINICAL_WINDOW.low, CLINICAL_WINDOW.high
        truth, lung = case.truth.clip(low, high), case.regions["lung"]
        row = self._scores.setdefault(scanner, {one.name: [] for one in self._methods})
        for method in self._methods:
            image = method.enlarge(case).clip(low, high)
            row[method.name].append(psnr(image, truth, high - low, lung))

    def gains(self, model: str) -> dict[Scanner, tuple[str, Interval]]:
        """The best baseline of each scanner, and by how much a model is above it, dB."""
        baselines = [one.name for one in self._methods if one.kind == "baseline"]
        found = {}
        for scanner, row in self._scores.items():
            best = max(baselines, key=lambda name: float(np.mean(row[name])))
            apart = np.subtract(row[model], row[best])
            found[scanner] = (best, mean_interval([float(one) for one in apart]))
        return found

    @property
    def _models(self) -> list[str]:
        return [one.name for one in self._methods if one.kind == "model"]

    def sentences(self) -> list[str]:
        """A line a model: mean and worst of all scanners."""
        lines = []
        for model in self._models:
            gains = self.gains(model)
            worst = min(gains, key=lambda one: gains[one][1].mean)
            mean = np.mean([interval.mean for _, interval in gains.values()])
            lines.append(
                f"{model} over the best baseline on {len(gains)} scanners: mean {mean:+.2f} dB, "
                f"worst {gains[worst][1].mean:+.2f} dB ({worst.name}, over {gains[worst][0]})"
            )
        return lines

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: PSNR of every method, and each model's gain with its interval."""
        head = ["scanner", *(one.name for one in self._methods)]
        head += [f"{model} minus best baseline" for model in self._models]
        rows = []
        for scanner, row in self._scores.items():
            cells = [scanner.name, *(f"{np.mean(values):.2f}" for values in row.values())]
            for model in self._models:
                best, gain = self.gains(model)[scanner]
                ends = "" if gain.low != gain.low else f" ({gain.low:+.2f} to {gain.high:+.2f})"
                cells.append(f"{gain.mean:+.2f}{ends}, {best}")
            rows.append(cells)
        return head, rows

    def as_csv(self) -> str:
        """One row a scanner and method; of models also what they reach over the best baseline."""
        head = ["scanner", "method", "patients", "psnr", "best_baseline", "gain", "low", "high"]
        rows: list[list[object]] = [list(head)]
        gains = {model: self.gains(model) for model in self._models}
        for scanner, row in self._scores.items():
            for name, values in row.items():
                best, gain = gains[name][scanner] if name in gains else ("", None)
                ends = [] if gain is None else [f"{value:.4f}" for value in gain]
                rows.append(
                    [scanner.name, name, len(values), f"{np.mean(values):.4f}", best, *ends]
                )
        return as_csv(rows)

    def as_json(self) -> dict[str, object]:
        """PSNR by scanner and method, and the gains."""
        return {
            "psnr": {
                scanner.name: {name: float(np.mean(values)) for name, values in row.items()}
                for scanner, row in self._scores.items()
            },
            "minus_best_baseline": {
                model: {
                    scanner.name: {"baseline": best, **gain._asdict()}
                    for scanner, (best, gain) in self.gains(model).items()
                }
                for model in self._models
            },
        }

    def draw(self, path: Path) -> None:
        """Heat map of the first model's gains: the grid, then other spectra and pixels below."""
        model = self._models[0]
        gains = {scanner: gain.mean for scanner, (_, gain) in self.gains(model).items()}
        rows = [f"{blur:g} px" for blur in BLURS]
        values = [[gains.get(Scanner(blur, noise), np.nan) for noise in NOISES] for blur in BLURS]
        for spectrum in dict.fromkeys(one.spectrum for one in OTHER_SPECTRA):
            for blur in dict.fromkeys(one.blur for one in OTHER_SPECTRA):
                rows.append(f"{blur:g} px, {spectrum}")
                values.append(
                    [gains.get(Scanner(blur, noise, spectrum), np.nan) for noise in NOISES]
                )
        for scanner in OTHER_PIXELS:
            if scanner in gains:
                rows.append(f"{scanner.name}, its own")
                values.append([np.nan, gains[scanner], np.nan])
        draw_heat_map(
            path,
            f"{model} over the best baseline: point spread and noise",
            rows,
            [f"{noise:g} HU" for noise in NOISES],
            np.array(values),
        )


def measure_matrix(
    methods: Sequence[Method],
    cases: Iterable[TruthCase],
    other_pixels: Iterable[tuple[Scanner, TruthCase]],
    advance: Callable[[], object],
) -> ScannerMatrix:
    """Score methods on all scanners.

    Args:
        methods: see `ScannerMatrix`.
        cases: patients, whose truths are seen anew.
        other_pixels: patients that were scanned with other pixels, and by what.
        advance: called after each patient and scanner.
    """
    matrix = ScannerMatrix(methods)
    for number, case in enumerate(cases):
        for scanner in (*GRID, *OTHER_SPECTRA):
            matrix.add(scanner, scanned(case, scanner, number))
            advance()
    for scanner, case in other_pixels:
        matrix.add(scanner, case)
        advance()
    return matrix
