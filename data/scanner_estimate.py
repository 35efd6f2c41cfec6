"""Which scanner made a clinical CT: its lung beside micro-CT that was shrunk.

Micro-CT, shrunk by area average, is lung as a scanner without blur or noise would see it. Nothing
has to be registered for that: spectra of lung are alike wherever they are taken. Patches are
compared with patches of the same coarse contrast, so that a patient with more vessels, or thicker
septa, is not taken for a sharper scanner. With MTF T(f) of half-value h and noise of filtered
back-projection (Riederer et al., Phys. Med. Biol. 23 (1978) 446-454), at f cycles a pixel

    clinical(f) = T(f)^2 (contrast * micro(f) + noise * f),   T(f) = 2^-((f / h)^steepness)

and between neighbouring slices the same with a share of the noise that is fitted; between every
other slice the noise is taken to be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import brentq, least_squares

from data.patches import slab_of
from data.training_data import TrainingData
from data.volumes.volume import LARGE_BYTES, Volume
from data.windows import WindowPolicy
from util.errors import UserError
from util.images.point_spread import HALF_OF_GAUSSIAN
from util.images.resampling import resize

EDGE = 20  # clinical pixels of a patch
STEP = EDGE // 2  # from one to the next
RUN = 3  # neighbouring slices that are compared
MOST_RUNS = 96  # over all volumes of a domain
WIDEST = 96  # clinical pixels of a run that are read, around its middle
MOST_PATCHES = 2000  # of a CT, and of all micro-CT
FEWEST = 20  # patches that a spectrum is the mean of
COARSE = slice(0, round(0.1 * EDGE))  # rings whose contrast sorts patches
GROUPS = 10  # of patches of like contrast, at the most
ROUNDS = 4  # of sorting by what the fit before made of the micro-CT
SQUARE, MARGIN, QUIETEST = 5, 4, 0.05  # pixels, pixels of the border, share of squares
NOISE_TOLERANCE = 0.05  # HU
FINEST = 0.57  # cycles a pixel; beyond are the corners of the spectrum
LEAST_TRANSFER = 1e-6  # of power; less is nothing, and cannot be divided by
FLOOR = 2.0  # HU^2: rounding, and what the patch's fading border leaves


class ScannerEstimate(NamedTuple):
    """What was found."""

    point_spread: float  # full width at half maximum of a Gaussian of that MTF's half, pixels
    noise: float  # standard deviation, HU
    steepness: float  # of the MTF: 2 for a Gaussian, more where edges overshoot


def estimate_scanner(clinical: np.ndarray, micro: np.ndarray) -> ScannerEstimate:
    """Find point spread and noise.

    Args:
        clinical: patches of clinical lung in RUN neighbouring slices, (n, RUN, EDGE, EDGE), HU.
        micro: the same of shrunk micro-CT, in the HU that its window gives it.

    Raises:
        UserError: fewer than FEWEST patches of either, or none whose contrast is alike.
    """
    for patches, what in ((clinical, "clinical lung"), (micro, "shrunk micro-CT")):
        if len(patches) < FEWEST:
            raise UserError(
                f"--scanner auto compares patches of {EDGE} x {EDGE} clinical pixels in {RUN} "
                f"neighbouring slices, found {len(patches)} of {what}, expected {FEWEST} at "
                "least: give larger volumes, or --scanner random"
            )
    seen, fine = _spectra(clinical), _spectra(micro)
    model = _START._replace(noise=_quietest(clinical))
    for round_number in range(ROUNDS):
        starts = _STARTS if round_number == 0 else [model]
        model = _fitted(*_of_like_contrast(seen, fine, model), model.noise, starts)
        model = model._replace(noise=_noise_of(clinical, micro, model))
        # The fading of a patch's border mixes neighbouring frequencies, in a scan behind the MTF:
        # the next round starts from what the tissue really becomes.
        transfer = np.maximum(_transfer(model, _RING_FREQUENCIES), LEAST_TRANSFER)
        fine = _spectra(_through(micro, model)) / transfer
    return ScannerEstimate(HALF_OF_GAUSSIAN / model.half, model.noise, model.steepness)


def clinical_patches(
    volumes: Sequence[tuple[Volume, np.ndarray | None]], runs: int = MOST_RUNS
) -> list[np.ndarray]:
    """Of each CT, patches that lie wholly inside its lung mask: (n, RUN, EDGE, EDGE) in HU.

    `runs` of slices are read over all volumes.
    """
    found = []
    for volume, mask in volumes:
        patches: list[np.ndarray] = []
        for first in _runs(volume.num_slices, runs // len(volumes)):
            images = [volume.read_slice(first + number) for number in range(RUN)]
            inside = None if mask is None else (mask[first : first + RUN] != 0).all(axis=0)
            patches += _cut(np.stack(images).astype(np.float32), inside)
        found.append(_stacked(patches))
    return found


def micro_patches(data: TrainingData, scale: int, runs: int = MOST_RUNS) -> np.ndarray:
    """Patches of all micro-CT, shrunk to the clinical pixel: (n, RUN, EDGE, EDGE) in HU.

    HU are what the windows make of its values. Where a voxel size is not known, `scale` voxels make
    a pixel; a slice is as thick as a clinical one, or one micro slice. `runs` as above.
    """
    patches: list[np.ndarray] = []
    for volume in data.micro:
        slices = slab_of(volume, data.clinical_thickness, (1.0, 1.0))[0]
        ratio = 1 / scale
        if volume.spacing_known and all(one.spacing_known for one, _ in data.clinical):
            ratio = volume.spacing[0] / data.clinical_spacing
        width, height = (min(length, round(WIDEST / ratio)) for length in volume.size[:2])
        column, row = ((volume.size[0] - width) // 2, (volume.size[1] - height) // 2)
        columns, rows = (max(1, round(length * ratio)) for length in (width, height))
        wanted = 1 if volume.array.nbytes > LARGE_BYTES else runs // len(data.micro)
        for first in _runs(volume.num_slices // slices, wanted):
            images = []
            for start in range(first * slices, (first + RUN) * slices, slices):
                slab = [
                    volume.read_patch(start + number, row, column, height, width)
                    for number in range(slices)
                ]
                shrunk = resize(np.stack(slab).mean(axis=0), rows, columns)
                images.append(hounsfield_of(shrunk, data.windows))
            patches += _cut(np.stack(images), None)
    return _stacked(patches)


def hounsfield_of(values: np.ndarray, windows: WindowPolicy) -> np.ndarray:
    """HU that the fixed windows make of micro-CT's own values, any shape; nothing is clipped."""
    own, target = windows.micro, windows.clinical
    factor = (target.high - target.low) / (own.high - own.low)
    return target.low + (np.asarray(values, np.float32) - own.low) * np.float32(factor)


def thinned(patches: np.ndarray) -> np.ndarray:
    """At most MOST_PATCHES of them, evenly."""
    return patches[:: max(1, -(-len(patches) // MOST_PATCHES))]


def _stacked(patches: list[np.ndarray]) -> np.ndarray:
    return thinned(np.array(patches, np.float32).reshape(-1, RUN, EDGE, EDGE))


def _runs(slices: int, wanted: int) -> list[int]:
    """First slices of evenly spaced runs, one at the least, none of them in two."""
    count = min(max(1, wanted), slices // RUN)
    return [int((number + 0.5) * slices / count - RUN / 2) for number in range(count)]


def _cut(images: np.ndarray, inside: np.ndarray | None) -> Iterator[np.ndarray]:
    """Patches of a run (RUN, rows, columns), where a mask (rows, columns) holds them wholly."""
    rows, columns = images.shape[1:]
    for row in range(0, rows - EDGE + 1, STEP):
        for column in range(0, columns - EDGE + 1, STEP):
            place = slice(row, row + EDGE), slice(column, column + EDGE)
            if inside is None or inside[place].all():
                yield images[(slice(None), *place)].copy()  # not a view that keeps the slices


class _Model(NamedTuple):
    contrast: float  # logarithm of the lung's in the clinical CT over that in the micro-CT
    half: float  # cycles a pixel where the MTF is a half
    steepness: float
    noise: float  # standard deviation, HU
    shared: float  # share of the noise that is the same in the next slice


_START = _Model(0.0, 0.3, 2.5, 0.0, 0.3)
_STARTS = [
    _START._replace(half=half, steepness=steepness) for half in (0.17, 0.35) for steepness in (2, 3)
]
_LOWEST, _HIGHEST = _Model(-3, 0.05, 1.2, 0, 0), _Model(3, 1.2, 6, np.inf, 0.8)

_FREQUENCIES = np.hypot(np.fft.fftfreq(EDGE)[:, None], np.fft.fftfreq(EDGE))
_RINGS = np.rint(_FREQUENCIES * EDGE).astype(np.intp)  # around 1, 2, ... waves a patch
_COUNT = int(FINEST * EDGE)
_MEMBERS = np.stack([(ring == _RINGS).ravel() for ring in range(1, _COUNT + 1)])
_RING_SIZES = _MEMBERS.sum(axis=1)
_MEANS = _MEMBERS / _RING_SIZES[:, None]  # (rings, EDGE * EDGE): the mean over each
_RING_FREQUENCIES = _MEANS @ _FREQUENCIES.ravel()


def _spectra(patches: np.ndarray) -> np.ndarray:
    """Power by rings of each patch, and between slices 1 and RUN - 1 apart: (n, RUN, rings)."""
    fading = np.hanning(EDGE + 2)[1:-1]
    window = np.outer(fading, fading)
    window /= np.sqrt((window**2).mean())
    level = patches.mean(axis=(2, 3), keepdims=True)
    waves = np.fft.fft2((patches - level) * window) / EDGE
    crossed = waves[:, :1].conj() * waves
    return crossed.real.reshape(*crossed.shape[:2], -1) @ _MEANS.T


def _transfer(model: _Model, frequency: np.ndarray) -> np.ndarray:
    """T(f)^2."""
    power: np.ndarray = 4.0 ** -((frequency / model.half) ** model.steepness)
    return power


def _through(patches: np.ndarray, model: _Model) -> np.ndarray:
    """Patches (..., EDGE, EDGE) through the MTF."""
    waves = np.fft.fft2(patches) * np.sqrt(_transfer(model, _FREQUENCIES))
    return np.fft.ifft2(waves).real


def _noise(model: _Model, frequency: np.ndarray) -> np.ndarray:
    """Power of the noise."""
    mean = (_FREQUENCIES * _transfer(model, _FREQUENCIES)).mean()
    power: np.ndarray = model.noise**2 * frequency * _transfer(model, frequency) / mean
    return power


def _quietest(patches: np.ndarray) -> float:
    """Standard deviation in the quietest small squares of patches (..., EDGE, EDGE)."""
    squares = sliding_window_view(patches, (SQUARE, SQUARE), axis=(-2, -1))
    kept = squares[..., MARGIN:-MARGIN, MARGIN:-MARGIN, :, :]
    return float(np.quantile(kept.std(axis=(-2, -1), ddof=1), QUIETEST))


def _noise_of(clinical: np.ndarray, micro: np.ndarray, model: _Model) -> float:
    """The noise with which micro-CT, seen through the MTF, is as quiet as the clinical CT.

    Where nothing but noise is seen, its level can be told; how much else is seen there, micro-CT
    tells.
    """
    wanted, tissue = _quietest(clinical[:, 0]), _through(micro[:, 0], model)
    if _quietest(tissue) >= wanted:
        return 0.0
    white = np.random.default_rng(0).standard_normal(tissue.shape)
    amplitude = np.sqrt(_noise(model._replace(noise=1.0), _FREQUENCIES))
    grain = np.fft.ifft2(np.fft.fft2(white) * amplitude).real

    def excess(noise: float) -> float:
        return _quietest(tissue + noise * grain) - wanted

    # The quietest squares show no less than a tenth of the noise, whatever its grain: an eighth at
    # the widest kernel that is looked for.
    return float(brentq(excess, 0, 10 * wanted, xtol=NOISE_TOLERANCE))


def _of_like_contrast(
    seen: np.ndarray, fine: np.ndarray, model: _Model
) -> tuple[np.ndarray, np.ndarray]:
    """Mean spectra (RUN, rings) of clinical patches and of micro patches like them.

    Args:
        seen, fine: spectra of clinical and micro patches.
        model: by which micro patches are seen before their coarse contrast is compared.
    """
    transfer, noise = (curve(model, _RING_FREQUENCIES)[COARSE] for curve in (_transfer, _noise))
    of_fine = (fine[:, 0, COARSE] * np.exp(model.contrast) * transfer + noise).mean(axis=1)
    of_seen = seen[:, 0, COARSE].mean(axis=1)
    groups = min(GROUPS, max(1, len(fine) // (2 * FEWEST)))
    borders = np.quantile(of_seen, np.linspace(0, 1, groups + 1))
    # Beyond the first and the last border lie micro patches that are like none.
    group_of_fine = np.searchsorted(borders, of_fine) - 1
    group_of_seen = np.searchsorted(borders[1:-1], of_seen)
    pairs = []
    for group in range(groups):
        mine, theirs = seen[group_of_seen == group], fine[group_of_fine == group]
        if len(theirs) >= FEWEST and len(mine) > 0:
            # Else the few patches with the largest vessels would decide alone.
            weight = 1 / mine[:, 0, COARSE].mean()
            pairs.append((weight, mine.mean(axis=0), theirs.mean(axis=0)))
    if not pairs:
        raise UserError(
            "--scanner auto found no lung in micro-CT that has the contrast of the clinical lung: "
            "check --windows micro=LOW:HIGH (docs/data.md), or take --scanner random"
        )
    weights, of_clinical, of_micro = (np.array(column) for column in zip(*pairs, strict=True))
    weights /= weights.sum()
    return np.tensordot(weights, of_clinical, 1), np.tensordot(weights, of_micro, 1)


def _fitted(seen: np.ndarray, fine: np.ndarray, noise: float, starts: Sequence[_Model]) -> _Model:
    """The model of this noise that makes the spectra of clinical lung from those of micro-CT."""
    weights = np.sqrt(_RING_SIZES / _RING_SIZES.mean())
    floored = seen[0] + FLOOR

    def residuals(values: np.ndarray) -> np.ndarray:
        model = _Model(*values)._replace(noise=noise)
        made = np.exp(model.contrast) * fine * _transfer(model, _RING_FREQUENCIES)
        made = made + np.outer((1, model.shared, 0), _noise(model, _RING_FREQUENCIES))
        power = np.log((made[0] + FLOOR) / floored)
        across = (made[1:] - seen[1:]) / floored
        # Patches of like contrast are compared, so it should be 0.
        return np.append(np.vstack([power, across]) * weights, model.contrast)

    fits = [
        least_squares(residuals, start, bounds=(_LOWEST, _HIGHEST), loss="soft_l1", f_scale=0.1)
        for start in starts
    ]
    return _Model(*min(fits, key=lambda fit: fit.cost).x)._replace(noise=noise)
