"""From paths on the command line to a training data set: volumes, masks, windows, digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.formats.discovery import find_volumes
from data.opening import (
    Spacing,
    open_volumes,
    open_with_lung_mask,
    slice_digests,
    spacing_for,
)
from data.phantom.scanners import MicroScanner
from data.phantom.training_set import generate_phantom, report_phantom
from data.volumes.mask_files import mask_in_words
from data.volumes.volume import Volume
from data.windows import (
    CLINICAL_WINDOW,
    Domain,
    Normalization,
    WindowPolicy,
    parse_windows,
    percentile_window,
    sampled_range,
)
from util.errors import UserError

CUBE_TOLERANCE = 0.02  # relative; headers round voxel sizes
TABLE_HEAD = ["domain", "voxels", "mm", "range", "lung", "patches", "file"]


@dataclass(frozen=True)
class TrainingData:
    """Everything a data set draws from."""

    # CT volumes, each with its lung mask (z, y, x)
    clinical: list[tuple[Volume, np.ndarray | None]]
    micro: list[Volume]  # micro-CT volumes; empty in the public setting
    windows: WindowPolicy  # travel with the weights
    digests: list[str]  # fingerprints of all slices that training may see
    # files of the clinical volumes' lung masks, or that they were computed
    masks: Sequence[str] = ()

    @property
    def sources(self) -> dict[str, list[str]]:
        """Paths of the volumes, by domain, as the user knows them."""
        return {
            "clinical": [volume.source for volume, _ in self.clinical],
            "micro": list(dict.fromkeys(volume.source for volume in self.micro)),
        }

    @property
    def clinical_spacing(self) -> float:
        """Median in-plane voxel size of the clinical volumes, in mm.

        Raises:
            UserError: one of them states none.
        """
        for volume, _ in self.clinical:
            if not volume.spacing_known:
                raise UserError(
                    f"{volume.source} states no voxel size, which --match_spacing needs: convert "
                    "it with its voxel size, or leave it out"
                )
        return float(np.median([volume.spacing[:2] for volume, _ in self.clinical]))

    @property
    def clinical_thickness(self) -> float | None:
        """Median distance of clinical slices in mm; None where no volume states a voxel size."""
        known = [volume.spacing[2] for volume, _ in self.clinical if volume.spacing_known]
        return float(np.median(known)) if known else None

    def describe(self, patch_counts: Sequence[int]) -> str:
        """A table of the volumes and the windows, for the user's eyes.

        Args:
            patch_counts: patch positions in each volume, as `PatchDataset.patch_counts`.
        """
        volumes = [
            *(("clinical", volume, mask) for volume, mask in self.clinical),
            *(("micro", volume, None) for volume in self.micro),
        ]
        rows = [
            _row(domain, volume, mask, count)
            for (domain, volume, mask), count in zip(volumes, patch_counts, strict=True)
        ]
        lines = _table([TABLE_HEAD, *rows])
        lines += [
            f"lung mask of {volume.source}: {mask}"
            for (volume, _), mask in zip(self.clinical, self.masks, strict=False)
        ]
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


def _row(domain: str, volume: Volume, mask: np.ndarray | None, patches: int) -> list[str]:
    low, high = sampled_range(volume)
    return [
        domain,
        "x".join(str(edge) for edge in volume.size),
        "x".join(f"{edge:.4g}" for edge in volume.spacing)
        + ("" if volume.spacing_known else " (assumed)"),
        f"{low:g} to {high:g}",
        "" if mask is None else f"{100 * lung_share(mask):.0f} %",
        f"{patches:,}",
        volume.source,
    ]


def _table(rows: list[list[str]]) -> list[str]:
    """Lines with columns of equal width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


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


def refuse_missed(volume: Volume, windows: WindowPolicy, domain: Domain) -> None:
    """Refuse a window that leaves nothing of a volume, whose patches would all be one value.

    Raises:
        UserError: so it is, as where 8-bit and 16-bit micro-CT share a window.
    """
    if windows.normalization == "minmax":
        return
    window, (low, high) = windows.window_for(volume, domain), sampled_range(volume)
    if high <= window.low or low >= window.high:
        raise UserError(
            f"{volume.source} has values of {low:g} to {high:g}, all outside the {domain} window "
            f"{window.low:g} to {window.high:g}: give --windows {domain}=LOW:HIGH by what "
            "air and tissue have in it (docs/data.md), or leave the volume out"
        )


def all_axes(volume: Volume, axes: str) -> list[Volume]:
    """A micro-CT volume with slices across each of these axes.

    Raises:
        UserError: more than one axis of a volume whose voxels are not cubes.
    """
    if len(axes) > 1 and not volume.spacing_known:
        raise UserError(
            f"{volume.source} states no voxel size, expected cubes for --micro_axes {axes}: give "
            "--micro_spacing"
        )
    if len(axes) > 1 and np.ptp(volume.spacing) > CUBE_TOLERANCE * max(volume.spacing):
        spacing = " x ".join(f"{edge:g}" for edge in volume.spacing)
        raise UserError(
            f"{volume.source} has voxels of {spacing} mm, expected cubes for --micro_axes {axes}: "
            "leave --micro_axes out, or resample it first"
        )
    return [volume.turned(axis) for axis in axes]


def phantom_windows() -> list[str]:
    """Windows that give the same tissue the same network value in both of the phantom's domains.

    Its micro scanner's units are a known line in HU, so no percentiles are needed: an SR image
    then has the right HU, where percentiles would stretch soft tissue to the window's high end.
    """
    low, high = MicroScanner().units(np.array([CLINICAL_WINDOW.low, CLINICAL_WINDOW.high]))
    return [f"micro={low}:{high}"]


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
    micro_axes: str | None = None,
) -> TrainingData:
    """Open all volumes of a training run; without any path, the phantom's.

    Args:
        dataset_mode: unpaired, paired or public_2D.
        clinical_words, micro_words: files, folders or globs.
        phantom_folder: where the phantom of this scale lies or is to be generated.
        scale: 2^n.
        cache_dir, spacing, slices: as for `open_volumes`.
        mask_folder: lung masks, `CASE_mask.nii.gz`.
        normalization, window_words: as for `choose_windows`.
        stored_windows: windows of a resumed run, which win over measured ones.
        say: takes lines about what is going on.
        micro_axes: axes that micro-CT is sliced across; None for all three of the phantom, and for
            the slices of the file elsewhere.

    Raises:
        UserError: only one of the two domains is given, or any volume cannot be used or lies
            outside its window.
    """
    both = dataset_mode != "public_2D"
    if dataset_mode == "paired" and not (clinical_words and micro_words):
        raise UserError(
            "paired training needs clinical volumes and their truths: give --all_clinical_paths "
            "and --all_micro_paths in the same order, such as python -m data.phantom makes them"
        )
    if not clinical_words and not micro_words:
        say(f"no data given: training on the digital lung phantom in {phantom_folder}")
        phantom = generate_phantom(phantom_folder, scale, report_phantom(say))
        clinical_words = [str(phantom.clinical)]
        micro_words = [str(phantom.micro)] if both else []
        window_words = window_words or phantom_windows()
        micro_axes = micro_axes or "zyx"
    elif not clinical_words or (both and not micro_words):
        missing, flag = ("micro-CT", "micro") if clinical_words else ("clinical CT", "clinical")
        raise UserError(
            f"unpaired training needs both domains, got no {missing}: give --{flag}_folder or "
            f"--all_{flag}_paths (with clinical CT alone: --dataset_mode public_2D)"
        )
    clinical = [
        open_with_lung_mask(
            path, cache_dir, mask_folder, spacing_for(path, "clinical", spacing), slices
        )
        for path in find_volumes(clinical_words, cache_dir)
    ]
    micro = open_volumes(micro_words, cache_dir, spacing, slices) if micro_words else []
    if stored_windows is None:
        windows = choose_windows(normalization, window_words, micro)
    else:
        windows = WindowPolicy.from_dict(stored_windows)
    for volume, _ in clinical:
        refuse_missed(volume, windows, "clinical")
    for volume in micro:
        refuse_missed(volume, windows, "micro")
    digests = slice_digests([volume for volume, _ in clinical] + micro)
    turned = [view for volume in micro for view in all_axes(volume, micro_axes or "z")]
    masks = [mask_in_words(volume, mask_folder) for volume, _ in clinical]
    return TrainingData(clinical, turned, windows, digests, masks)
