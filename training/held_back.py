"""Images that are held back from training, as the networks take them."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.formats.discovery import find_volumes
from data.opening import open_volumes, open_with_lung_mask, slice_digests, spacing_for
from data.patches import low_resolution, pixels_of
from data.training_data import TrainingData, refuse_missed
from data.volumes.volume import Volume
from data.windows import Domain
from models.scanner_model import Scanner
from options.train_checks import PAIR_LOSSES, has_weight
from util.errors import UserError
from util.files import plain
from util.images.resampling import resize

SLICES = 8  # of a domain, evenly spaced: enough to see a trend, a matter of seconds on a GPU
SMALLEST_EDGE = 6  # pixels at low resolution: SSIM's window is 11 at high, and G_A needs 4
SCORED_BY = ("sampling_times", "dataset_mode", "match_spacing", "degradation")
LARGEST_EDGE = 512  # micro pixels of a square: bounds memory and time, whatever the slices are


@dataclass(frozen=True)
class Sample:
    """One held-back image."""

    low: np.ndarray  # input of G_A, (rows, columns) in [-1, 1]
    # what it was shrunk from, k times as large, in [-1, 1]; None for clinical CT
    high: np.ndarray | None
    hu: float  # HU (for micro-CT the file's units) that a step of 1 in [-1, 1] stands for


@dataclass(frozen=True)
class HeldBack:
    """The held-back volumes, clinical ones with their lung masks."""

    clinical: list[tuple[Volume, np.ndarray | None]]
    micro: list[Volume]


def has_held_back(options: Namespace) -> bool:
    """Whether anything is to be held back."""
    return bool(options.val_slices or options.val_clinical_paths or options.val_micro_paths)


def open_held_back(options: Namespace, data: TrainingData, trained_on: Sequence[str]) -> HeldBack:
    """Open what --val_clinical_paths, --val_micro_paths or --val_slices name.

    Args:
        options: of the run.
        data: that is trained on; its volumes are taken where no others are named.
        trained_on: fingerprints of all slices that the run was ever trained on.

    Raises:
        UserError: a slice of them is trained on, what a score needs is missing, or the window
            leaves nothing of a volume.
    """
    words = {"clinical": options.val_clinical_paths, "micro": options.val_micro_paths}
    if not any(words.values()):
        words = data.sources
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    masks = Path(options.maskdatafolder) if options.maskdatafolder else None
    spacing, slices = options.micro_spacing, options.val_slices
    clinical = [
        open_with_lung_mask(path, cache_dir, masks, spacing_for(path, "clinical", spacing), slices)
        for path in (find_volumes(words["clinical"], cache_dir) if words["clinical"] else [])
    ]
    micro = open_volumes(words["micro"], cache_dir, spacing, slices) if words["micro"] else []
    public = options.dataset_mode == "public_2D"
    if not (clinical if public else micro):
        missing = "clinical CT" if public else "micro-CT"
        flag = "clinical" if public else "micro"
        raise UserError(
            f"PSNR and SSIM are measured on held-back {missing}, got none: give "
            f"--val_{flag}_paths, or --val_slices such as -20:"
        )
    for volume in [*(volume for volume, _ in clinical), *micro]:
        if set(slice_digests([volume])) & set(trained_on):
            raise UserError(
                f"validation volume {volume.source} holds slices that are trained on: give "
                "--val_slices, or other volumes"
            )
    for volume, _ in clinical:
        refuse_missed(volume, data.windows, "clinical")
    for volume in micro:
        refuse_missed(volume, data.windows, "micro")
    return HeldBack(clinical, micro)


def make_samples(held_back: HeldBack, data: TrainingData, options: Namespace) -> list[Sample]:
    """Squares of evenly spaced slices, as the networks take them; without any chance in it.

    Raises:
        UserError: slices are smaller than a patch.
    """
    scale = 2**options.sampling_times
    public = options.dataset_mode == "public_2D"
    samples = []
    micro: list[tuple[Volume, np.ndarray | None]] = [(volume, None) for volume in held_back.micro]
    domains: list[tuple[Domain, list[tuple[Volume, np.ndarray | None]]]] = [
        ("clinical", held_back.clinical),
        ("micro", micro),
    ]
    for domain, volumes in domains:
        whole = domain == "micro" or public
        edge = LARGEST_EDGE if whole else LARGEST_EDGE // scale
        spacing = None
        if domain == "micro" and options.match_spacing:
            spacing = data.clinical_spacing / scale
        for square in squares(volumes, edge, scale if whole else 1, spacing):
            window = data.windows.window_for(square.volume, domain)
            image = window.to_unit(square.read())
            hu = (window.high - window.low) / 2
            if whole:
                low = low_resolution(image, scale, options.degradation)
                samples.append(Sample(low, image, hu))
            else:
                samples.append(Sample(image, None, hu))
    if not any(sample.high is not None for sample in samples):
        raise UserError(
            "no held-back slice shows lung, so there is nothing to score: hold others back"
        )
    smallest = min(min(sample.low.shape) for sample in samples)
    if smallest < SMALLEST_EDGE:
        raise UserError(
            f"a held-back slice measures {smallest} pixels at low resolution, expected "
            f"{SMALLEST_EDGE} at least: hold larger ones back"
        )
    return samples


def fingerprint(held_back: HeldBack, data: TrainingData, options: Namespace) -> str:
    """32 hex digits of all that scores depend on besides the model: of the files and options, since
    the last bit of a resampled image depends on the processor.

    Args:
        held_back: volumes.
        data: that is trained on, for its windows.
        options: of the run.
    """
    volumes = [*(volume for volume, _ in held_back.clinical), *held_back.micro]
    masks = [
        np.packbits(np.asarray(mask) != 0) for _, mask in held_back.clinical if mask is not None
    ]
    scanner = has_weight(options, PAIR_LOSSES)
    starts = ("scanner", "pair_") if scanner else ()
    said = {
        name: value
        for name, value in vars(options).items()
        if name in SCORED_BY or name.startswith(starts)
    }
    facts: dict[str, Any] = {
        "slices": [slice_digests([volume]) for volume in volumes],
        "masks": [blake2b(mask.tobytes(), digest_size=16).hexdigest() for mask in masks],
        "windows": data.windows.as_dict(),
        "options": said,
    }
    if options.match_spacing:
        facts["spacings"] = [volume.spacing for volume in volumes], data.clinical_spacing
    return blake2b(json.dumps(plain(facts), sort_keys=True).encode(), digest_size=16).hexdigest()


def seen_by_scanner(samples: Sequence[Sample], scanner: Scanner) -> list[Sample]:
    """Samples whose shrunk inputs a scanner saw: what pseudo-pairs teach the model to undo.

    Each has blur and noise of its own, the same in every run, and torch's random state stays as it
    was. Clinical CT was seen by its scanner already.

    Args:
        samples: inputs (rows, columns) in [-1, 1], area averages where there is a truth.
        scanner: of the run; it works on (1, 1, rows, columns) in [-1, 1].
    """
    seen = []
    with torch.random.fork_rng(devices=[]):
        for number, sample in enumerate(samples):
            if sample.high is None:
                seen.append(sample)
                continue
            torch.default_generator.manual_seed(number)  # torch.manual_seed would seed GPUs too
            low = scanner.acquire(torch.from_numpy(sample.low)[None, None])[0, 0].numpy()
            seen.append(replace(sample, low=low))
    return seen


@dataclass(frozen=True)
class Square:
    """A part of one slice, and the number of pixels that it is resampled to."""

    volume: Volume  # where it lies
    index: int  # its slice
    corner: tuple[int, int, int, int]  # (row, column, height, width) in the volume's pixels
    # rows, columns: of the image
    rows: int
    columns: int

    def read(self) -> np.ndarray:
        """float32 (rows, columns) in physical units."""
        return resize(self.volume.read_patch(self.index, *self.corner), self.rows, self.columns)


def squares(
    volumes: Sequence[tuple[Volume, np.ndarray | None]],
    edge: int,
    multiple: int,
    spacing: float | None = None,
) -> Iterator[Square]:
    """Squares of evenly spaced slices, around the lung.

    Args:
        volumes: with their lung masks, or None for the middle of the slice.
        edge: of the square at the most, in pixels of the image.
        multiple: rows and columns of the image are multiples of this.
        spacing: voxel size in mm that images are resampled to; None leaves it.
    """
    if not volumes:
        return
    places = np.linspace(0, len(volumes) - 1, min(SLICES, len(volumes))).round().astype(int)
    shares = [len(part) for part in np.array_split(np.arange(SLICES), len(places))]
    for (volume, mask), share in zip([volumes[place] for place in places], shares, strict=True):
        columns, rows, slices = volume.size
        ratio = 1.0 if spacing is None else pixels_of(volume, edge, spacing) / edge
        tall, wide = (
            min(edge, int(side / ratio)) // multiple * multiple for side in (rows, columns)
        )
        height, width = min(rows, round(tall * ratio)), min(columns, round(wide * ratio))
        candidates = np.arange(slices)
        if mask is not None:
            candidates = np.array([z for z in candidates if np.any(mask[z])], dtype=int)
        picked = np.linspace(0, len(candidates) - 1, min(share, len(candidates)))
        for index in candidates[np.round(picked).astype(int)]:
            row, column = (rows - height) // 2, (columns - width) // 2
            if mask is not None:
                row, column = most_lung(mask[index], height, width)
            yield Square(volume, int(index), (row, column, height, width), tall, wide)


def most_lung(section: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """(row, column) of the square with most lung: the middle of both lungs is the heart."""
    sums = np.pad((section != 0).astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    lung = sums[height:, width:] - sums[:-height, width:]
    lung -= sums[height:, :-width] - sums[:-height, :-width]
    row, column = divmod(int(np.argmax(lung)), lung.shape[1])
    return row, column
