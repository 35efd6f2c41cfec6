"""What a model has to beat: interpolation, and the best linear filters; and a control.

Filters are learned on phantom patients of their own. The *blind* one knows no more of the scanner
than the weights do: random scanners. Two others are oracles, which know what nobody knows of a
real scan: the filter learned for the very scanner, and Wiener deconvolution by its true spectra.
The control is the blind filter and noise of the truth's own spectrum: what it reaches in a
measure, noise can reach.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from skimage.filters import unsharp_mask

from data.truth_case import TruthCase
from data.windows import CLINICAL_WINDOW
from models.base_model import make_scanner
from options.train_groups import SCANNER
from util.images.linear_filter import FilterFit, LinearFilter, wiener_enlarge, wiener_gain
from util.images.resampling import area_average, enlarge, resize
from util.images.spectra import faded
from util.images.texture import radial_power_spectrum
from util.images.trust import FADE

UNSHARP_RADIUS = 0.75  # clinical pixels: about the kernel's own blur
UNSHARP_AMOUNT = 1.0
LOOKS = 16  # random scanners that see each slice a filter is learned from
MOSTLY = 0.99  # share of lung in a clinical pixel from which a filter learns from it

Kind = Literal["baseline", "oracle", "control", "model"]
Enlarge = Callable[[TruthCase], np.ndarray]
BLIND, KNOWN, WIENER = "linear filter", "linear filter, scanner known", "Wiener, scanner known"
CONTROL = "linear filter and noise"
LINEAR_NAMES = (BLIND, KNOWN, WIENER, CONTROL)


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    name: str
    kind: Kind
    enlarge: Enlarge  # volume of a case in HU, on the truth's grid


def interpolated(order: int) -> Enlarge:
    """Spline interpolation of an order, in HU."""
    return lambda case: np.stack([enlarge(one, case.scale, order) for one in case.clinical])


def sharpened(case: TruthCase) -> np.ndarray:
    """Cubic interpolation with an unsharp mask, in HU: what a viewer's sharpening does."""
    radius = UNSHARP_RADIUS * case.scale
    return np.stack(
        [
            unsharp_mask(one, radius, UNSHARP_AMOUNT, preserve_range=True)
            for one in interpolated(3)(case)
        ]
    )


INTERPOLATIONS = (
    Method("nearest", "baseline", interpolated(0)),
    Method("linear", "baseline", interpolated(1)),
    Method("cubic", "baseline", interpolated(3)),
    Method("cubic, unsharp mask", "baseline", sharpened),
)


def filters(cases: Sequence[TruthCase], known: bool) -> list[Method]:
    """Linear opponents and the control, learned from patients that are not scored.

    Args:
        cases: these patients.
        known: whether the scanner that saw them is that of all that are scored; else there are no
            oracles.
    """
    blind = filtered(blind_filter(cases))
    return [
        Method(BLIND, "baseline", blind),
        *(oracles(cases) if known else []),
        Method(CONTROL, "control", lambda case: with_noise(blind(case), case)),
    ]


def oracles(cases: Sequence[TruthCase]) -> list[Method]:
    """The least-squares filter and the Wiener filter of the scanner that saw the cases."""
    scale = cases[0].scale
    fit = FilterFit(scale)
    for case in cases:
        for image, truth, mask in zip(case.clinical, case.truth, case.mask, strict=True):
            fit.add(image, truth, mask)
    pixel = cases[0].spacing[0] * scale
    frequencies, gains = wiener_gain(
        np.concatenate([case.clinical for case in cases]),
        np.stack([area_average(one, scale) for case in cases for one in case.truth]),
        np.stack([faded(one, FADE) for case in cases for one in case.mask]),
        pixel,
    )

    def wiener(case: TruthCase) -> np.ndarray:
        def gain(frequency: np.ndarray) -> np.ndarray:
            return np.interp(frequency, frequencies, gains)

        return np.stack([wiener_enlarge(one, scale, pixel, gain) for one in case.clinical])

    return [Method(KNOWN, "oracle", filtered(fit.solve())), Method(WIENER, "oracle", wiener)]


def blind_filter(cases: Sequence[TruthCase], seed: int = 0) -> LinearFilter:
    """The least-squares filter over the random scanners of training, by its defaults.

    Point spread, sharpening, noise and its spectrum, calibration and pixel size are drawn for each
    look; slices are as thick as the cases', since no other truth is there.
    """
    scale = cases[0].scale
    drawn = {name: default for name, _, default, _ in SCANNER} | {"scanner": "random"}
    scanner = make_scanner(Namespace(**drawn, sampling_times=scale.bit_length() - 1))
    smallest, largest = drawn["scanner_pixel"]
    generator = np.random.default_rng(seed)
    fit = FilterFit(scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for case in cases:
            # As large as fits into the field when it is read with the largest pixels.
            edge = max(1, int(min(case.clinical.shape[1:]) / largest)) * scale
            for truth, lung in zip(case.truth, case.regions["lung"], strict=True):
                parts = [
                    _part(truth, lung, edge, generator.uniform(smallest, largest), generator)
                    for _ in range(LOOKS)
                ]
                averages = [CLINICAL_WINDOW.to_unit(area_average(part, scale)) for part, _ in parts]
                looks = scanner.acquire(torch.from_numpy(np.stack(averages))[:, None])[:, 0]
                for look, (part, share) in zip(looks.numpy(), parts, strict=True):
                    inside = area_average(share, scale) > MOSTLY
                    fit.add(CLINICAL_WINDOW.to_physical(look), part, inside)
    return fit.solve()


def _part(
    truth: np.ndarray, lung: np.ndarray, edge: int, pixel: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A square of a slice read with pixels of another size, and the share of lung in each pixel."""
    read = min(round(pixel * edge), *truth.shape)
    row, column = (int(generator.integers(length - read + 1)) for length in truth.shape)
    square = (slice(row, row + read), slice(column, column + read))
    return resize(truth[square], edge, edge), resize(lung[square], edge, edge)


def filtered(linear: LinearFilter) -> Enlarge:
    """Enlargement by a filter, in HU."""
    return lambda case: np.stack([linear.enlarge(one) for one in case.clinical])


def with_noise(images: np.ndarray, case: TruthCase, seed: int = 0) -> np.ndarray:
    """Images with what their spectrum lacks of thin slices, as noise; HU."""
    frequency, wanted = mean_spectrum([case.thin], [case])
    _, power = mean_spectrum([images], [case])
    missing = np.sqrt(np.maximum(0, wanted - power)) / case.spacing[0]
    rows, columns = images.shape[1:]
    distance = np.hypot(
        np.fft.fftfreq(rows, case.spacing[0])[:, None], np.fft.rfftfreq(columns, case.spacing[0])
    )
    amplitude = np.interp(distance, frequency, missing)
    generator = np.random.default_rng(seed)
    noise = [
        np.fft.irfft2(np.fft.rfft2(generator.standard_normal((rows, columns))) * amplitude)
        for _ in images
    ]
    return images + np.asarray(noise, dtype=np.float32)


def mean_spectrum(
    volumes: Sequence[np.ndarray], cases: Sequence[TruthCase]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean radial power spectrum inside the lung, over all slices: cycles/mm, HU^2 mm^2."""
    frequency, powers = np.empty(0), []
    for volume, case in zip(volumes, cases, strict=True):
        for image, lung in zip(volume, case.regions["lung"], strict=True):
            if lung.any():
                weights = faded(lung, FADE * case.scale)
                frequency, power = radial_power_spectrum(image, case.spacing[0], weights)
                powers.append(power)
    return frequency, np.mean(powers, axis=0)
