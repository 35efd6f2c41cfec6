"""From paths on the command line to a training data set: volumes, masks, windows, digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.discovery import find_volumes
from data.lung_mask import load_lung_mask
from data.phantom import generate_phantom
from data.phantom_scanners import MicroScanner
from data.readers import read_volume
from data.volume import Volume, parse_slices
from data.windows import (
    CLINICAL_WINDOW,
    Normalization,
    WindowPolicy,
    parse_windows,
    percentile_window,
)
from util.errors import UserError

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class TrainingData:
    """Everything a data set draws from.

    Attributes:
        clinical: CT volumes, each with its lung mask (z, y, x).
        micro: micro-CT volumes; empty in the public setting.
        windows: travel with the weights.
        digests: fingerprints of all slices that training may see.
    """

    clinical: list[tuple[Volume, np.ndarray | None]]
    micro: list[Volume]
    windows: WindowPolicy
    digests: list[str]

    @property
    def sources(self) -> dict[str, list[str]]:
        """Paths of the volumes, by domain, as the user knows them."""
        return {
            "clinical": [volume.source for volume, _ in self.clinical],
            "micro": [volume.source for volume in self.micro],
        }

    def describe(self) -> str:
        """One line a volume (size, spacing, lung share) and the windows, for the user's eyes."""
        lines = []
        for volume, mask in self.clinical:
            share = "" if mask is None else f", {100 * lung_share(mask):.0f} % lung"
            lines.append(f"clinical {_summary(volume)}{share}")
        lines += [f"micro    {_summary(volume)}" for volume in self.micro]
        windows = self.windows
        if windows.normalization == "minmax":
            lines.append("windows  each volume's own range (as published)")
        else:
            lines.append(
                f"windows  clinical [{windows.clinical.low:g}, {windows.clinical.high:g}] HU, "
                f"micro [{windows.micro.low:g}, {windows.micro.high:g}]"
            )
        return "\n".join(lines)


def lung_share(mask: np.ndarray) -> float:
    """Share of the voxels (z, y, x) that are lung, counted slice by slice."""
    return sum(int(np.count_nonzero(section)) for section in mask) / mask.size


def _summary(volume: Volume) -> str:
    size = "x".join(str(edge) for edge in volume.size)
    spacing = "x".join(f"{edge:.4g}" for edge in volume.spacing)
    unknown = "" if volume.spacing_known else " (assumed: the file states none)"
    return f"{volume.source}: {size} voxels of {spacing} mm{unknown}"


def open_volumes(
    words: Sequence[str],
    cache_dir: Path | None,
    spacing: Spacing | None = None,
    slices: str | None = None,
) -> list[Volume]:
    """Open every volume that the words name.

    Args:
        words: files, folders or globs; see `data.discovery.find_volumes`.
        cache_dir: folder for unpacked volumes; None takes the user's cache folder.
        spacing: voxel size (x, y, z) in mm of TIFF volumes.
        slices: START:STOP applied to each volume; None takes all.
    """
    volumes = []
    for path in find_volumes(words):
        volume = read_volume(path, cache_dir, spacing)
        if slices is not None:
            volume = volume.select_slices(*parse_slices(slices, volume.num_slices))
        volumes.append(volume)
    return volumes


def open_with_lung_mask(
    path: Path,
    cache_dir: Path | None,
    mask_folder: Path | None,
    spacing: Spacing | None = None,
    slices: str | None = None,
) -> tuple[Volume, np.ndarray | None]:
    """Open one clinical volume with its lung mask (z, y, x) on the same slices.

    The mask is found or computed for the whole CT before slices are selected, so that it does
    not depend on the selection.
    """
    volume = read_volume(path, cache_dir, spacing)
    mask = load_lung_mask(volume, mask_folder, cache_dir)
    if slices is not None:
        start, stop = parse_slices(slices, volume.num_slices)
        volume, mask = volume.select_slices(start, stop), mask[start:stop]
    return volume, mask


def choose_windows(
    normalization: Normalization, words: Sequence[str] | None, micro: Sequence[Volume]
) -> WindowPolicy:
    """Windows that will travel with the weights.

    Clinical CT takes [-1000, 500] HU and micro-CT the 0.1 and 99.9 percentiles of its training
    volumes, unless `words` (see `parse_windows`) say otherwise.
    """
    given = parse_windows(words or [])
    if "clinical" in given and given["clinical"] is None:
        raise UserError(
            "window clinical=auto is not offered, since HU are calibrated: give clinical=LOW:HIGH "
            "such as clinical=-1000:500"
        )
    clinical = given.get("clinical") or CLINICAL_WINDOW
    micro_window = given.get("micro")
    if micro_window is None:
        # Without micro-CT (public setting) the micro domain is clinical CT at full resolution.
        micro_window = percentile_window(micro) if micro else clinical
    return WindowPolicy(normalization, clinical, micro_window)


def slice_digests(volumes: Sequence[Volume]) -> list[str]:
    """Fingerprints of all slices of all volumes, without those of constant slices."""
    return sorted({digest for volume in volumes for digest in volume.slice_digests() if digest})


def phantom_windows() -> list[str]:
    """Windows that give the same tissue the same network value in both of the phantom's domains.

    Its micro scanner's units are a known line in HU, so no percentiles are needed: an SR image
    then has the right HU, where percentiles would stretch soft tissue to the window's high end.
    """
    low, high = MicroScanner().units(np.array([CLINICAL_WINDOW.low, CLINICAL_WINDOW.high]))
    return [f"micro={low}:{high}"]


def report_phantom(say: Callable[[str], None]) -> Callable[[int, int, str], None]:
    """Progress of `generate_phantom` as lines for `say`."""
    return lambda done, count, name: say(f"phantom: made {name} ({done} of {count})")


def open_training_data(
    *,
    dataset_mode: str,
    clinical_words: Sequence[str],
    micro_words: Sequence[str],
    phantom_folder: Path,
    scale: int,
    cache_dir: Path | None,
    mask_folder: Path | None,
    spacing: Spacing | None,
    slices: str | None,
    normalization: Normalization,
    window_words: Sequence[str] | None,
    stored_windows: Mapping[str, Any] | None,
    say: Callable[[str], None],
) -> TrainingData:
    """Open all volumes of a training run; without any path, the phantom's.

    Args:
        dataset_mode: unpaired or public_2D.
        clinical_words, micro_words: files, folders or globs.
        phantom_folder: where the phantom of this scale lies or is to be generated.
        scale: 2^n.
        cache_dir, spacing, slices: as for `open_volumes`.
        mask_folder: lung masks, `CASE_mask.nii.gz`.
        normalization, window_words: as for `choose_windows`.
        stored_windows: windows of a resumed run, which win over measured ones.
        say: takes lines about what is going on.

    Raises:
        UserError: only one of the two domains is given, or any volume cannot be used.
    """
    unpaired = dataset_mode == "unpaired"
    if not clinical_words and not micro_words:
        say(f"no data given: training on the digital lung phantom in {phantom_folder}")
        phantom = generate_phantom(phantom_folder, scale, report_phantom(say))
        clinical_words = [str(phantom.clinical)]
        micro_words = [str(phantom.micro)] if unpaired else []
        window_words = window_words or phantom_windows()
    elif not clinical_words or (unpaired and not micro_words):
        missing, flag = ("micro-CT", "micro") if clinical_words else ("clinical CT", "clinical")
        raise UserError(
            f"unpaired training needs both domains, got no {missing}: give --{flag}_folder or "
            f"--all_{flag}_paths (with clinical CT alone: --dataset_mode public_2D)"
        )
    clinical = [
        open_with_lung_mask(path, cache_dir, mask_folder, spacing, slices)
        for path in find_volumes(clinical_words)
    ]
    micro = open_volumes(micro_words, cache_dir, spacing, slices) if micro_words else []
    if stored_windows is None:
        windows = choose_windows(normalization, window_words, micro)
    else:
        windows = WindowPolicy.from_dict(stored_windows)
    digests = slice_digests([volume for volume, _ in clinical] + micro)
    return TrainingData(clinical, micro, windows, digests)
