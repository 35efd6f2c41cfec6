"""A case as the viewer of a page shows it: its volumes, overlays and windows, reduced to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from methods.pages.excerpt import (
    Excerpt,
    Layer,
    Slices,
    collect,
    nifti_gz,
    plan_excerpts,
    plane_of,
    slice_centres,
)
from util.images.intensity_window import IntensityWindow
from util.images.pictures import best_inset
from util.pages.viewer_page import PageView, PageVolume, Viewer

# Two bytes a voxel, of which gzip leaves 70 % of noisy CT; base64 makes four bytes of three.
PAGE_BYTES_PER_VOXEL = 2.0
LUNG_WINDOW = (-1350.0, 150.0)  # HU: level -600, width 1500
MEDIASTINUM_WINDOW = (-160.0, 240.0)  # HU: level 40, width 400


@dataclass(frozen=True)
class Overlay:
    """A layer that is laid over the others, in colour."""

    layer: Layer  # its name and grid
    what: str  # a sentence for the page
    unit: str = "HU"  # of its values
    colormap: str = "hot"  # NiiVue's
    low: float = 0.0  # value below which it is clear; the 99.5th percentile gets the last colour


@dataclass(frozen=True)
class CaseImages:
    """All that a page needs to know of a case's volumes."""

    size: tuple[int, int, int]  # voxels (x, y, z) of the input
    layers: Sequence[Layer]  # images, the input first
    overlays: Sequence[Overlay]  # to lay over them
    # see `methods.pages.excerpt.collect`; gives layers and overlays
    read: Callable[[Sequence[int]], Iterable[Slices]]
    focus: tuple[int, int, int]  # (slice, row, column) of the input that is shown first
    window: IntensityWindow  # of the model
    first: Sequence[str]  # layers that the panes show at the start
    swipe: tuple[str, str]  # the two that the swipe begins with
    unit: str = "HU"  # of the values


def focus_of(
    index: int, image: np.ndarray, window: IntensityWindow, mask: np.ndarray | None
) -> tuple[int, int, int]:
    """The most detailed place of a slice: (slice, row, column).

    Args:
        index: of the slice.
        image: it, in physical units (rows, columns).
        window: within which detail counts.
        mask: where detail counts; None for everywhere.
    """
    row, column, height, width = best_inset(image.clip(window.low, window.high), region=mask)
    rows, columns = image.shape
    return (
        index,
        min(rows - 1, int((row + height / 2) * rows)),
        min(columns - 1, int((column + width / 2) * columns)),
    )


def case_viewer(images: CaseImages, page_bytes: float) -> Viewer:
    """Read what the page shows and pack it.

    Args:
        images: the case.
        page_bytes: that all volumes together may take.
    """
    layers = [*images.layers, *(overlay.layer for overlay in images.overlays)]
    finest = max(layer.scale for layer in layers)
    # The coarse ones hardly count.
    shares = sum((layer.scale / finest) ** 2 for layer in layers)
    voxels = max(1, int(page_bytes / PAGE_BYTES_PER_VOXEL / shares))
    excerpts = plan_excerpts(images.size, finest, voxels, images.focus)
    parts = collect(excerpts, layers, images.read)
    views = []
    for excerpt, part in zip(excerpts, parts, strict=True):

        def packed(layer: Layer, one: Excerpt = excerpt, arrays: Slices = part) -> bytes:
            return nifti_gz(arrays[layer.name], one.affine(layer.affine, layer.scale, finest))

        volumes = [PageVolume(layer.name, packed(layer), images.unit) for layer in images.layers]
        overlays = [
            PageVolume(
                overlay.layer.name,
                packed(overlay.layer),
                overlay.unit,
                overlay.colormap,
                overlay.low,
                _high(part[overlay.layer.name], overlay.low),
            )
            for overlay in images.overlays
        ]
        centres = slice_centres(excerpt, images.layers[0].affine)
        views.append(
            PageView(
                excerpt.name,
                describe(excerpt, images, finest),
                volumes,
                overlays,
                list(zip(excerpt.slices, centres, strict=True)),
                excerpt.slices.index(images.focus[0]),
            )
        )
    return Viewer(
        views,
        window_presets(images, parts[0][images.layers[0].name]),
        images.first,
        images.swipe,
        plane_of(images.layers[0].affine),
        images.size[2],
        images.unit,
        {overlay.layer.name: overlay.what for overlay in images.overlays},
    )


def window_presets(images: CaseImages, shown: np.ndarray) -> list[tuple[str, float, float]]:
    """(name, low, high): lung, mediastinum, model and full for HU; model and full for the rest."""
    model = ("model", images.window.low, images.window.high)
    low, high = float(shown.min()), float(shown.max())
    full = ("full", low, high if high > low else low + 1)
    if images.unit != "HU":
        return [model, full]
    return [("lung", *LUNG_WINDOW), ("mediastinum", *MEDIASTINUM_WINDOW), model, full]


def describe(excerpt: Excerpt, images: CaseImages, finest: int) -> str:
    """What the page leaves out, in a sentence."""
    columns, rows, slices = images.size
    if excerpt.name == "whole volume":
        return f"All {slices} slices with all {columns * finest} x {rows * finest} pixels."
    shown = f"{len(excerpt.slices)} of {slices} slices"
    if excerpt.name == "detail":
        return (
            f"All pixels of {len(excerpt.columns)} x {len(excerpt.rows)} pixels of the input, "
            f"{shown}. The files beside this page hold all of it."
        )
    return (
        f"The whole field of view, {shown}, {excerpt.shrink} x {excerpt.shrink} pixels of the "
        "finest volume averaged to one. The files beside this page hold all of it."
    )


def _high(values: np.ndarray, low: float) -> float:
    return max(low + 1.0, float(np.percentile(values, 99.5)))
