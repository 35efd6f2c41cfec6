"""Pictures for people: methods side by side with a magnified detail, on one grey scale."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from util.files import atomic_path

Inset = tuple[float, float, float, float]  # row, column, height, width as fractions of the image

DOTS_PER_INCH = 100
MARGIN = 12  # pixels between panels and around them
LINE_HEIGHT = 18  # pixels of one line of title or caption
CHARACTER_WIDTH = 7.5  # pixels, on the wide side for the 9-point font
# Grey values of noise hardly compress: 1.2 million drawn pixels stay below 1.5 MB as PNG.
PIXEL_BUDGET = 1_200_000
WIDEST_PANEL = 560
NARROWEST_PANEL = 120
LONGEST = 20  # times as high as wide, or as wide as high: longer images are drawn shorter


def unit_to_grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Network range [-1, 1] to grey values 0 to 255, clipped; NaN is drawn black. Any shape."""
    return _grey(values, -1.0, 1.0)


def best_inset(
    image: NDArray[Any], fraction: float = 0.125, region: NDArray[Any] | None = None
) -> Inset:
    """The most detailed square of an image, for `comparison_picture`.

    Detail is the standard deviation within a small neighbourhood (an eighth of the square's side),
    summed over the square: deviation rather than variance, so that many small structures beat one
    strong edge such as the chest wall. The topmost, then leftmost square wins among equals; an
    image without detail gives its middle.

    Args:
        image: (rows, columns), finite; clipped to the window that will be drawn, or invisible
            contrasts (within bone, in a lung window) choose the place.
        fraction: side of the square over the shorter side of the image, in (0, 1].
        region: mask (rows, columns) in whose inside detail counts, its border excepted; None for
            everywhere.

    Returns:
        (row, column, height, width) as fractions of the image's rows and columns.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, expected above 0 and at most 1")
    rows, columns = image.shape
    side = max(1, round(fraction * min(rows, columns)))
    values = np.asarray(image, dtype=np.float64)
    row, column = (rows - side) // 2, (columns - side) // 2
    if values.min() < values.max():
        neighbourhood = max(3, side // 8)
        values = (values - values.min()) / (values.max() - values.min())
        mean = ndimage.uniform_filter(values, neighbourhood)
        variance = ndimage.uniform_filter(values * values, neighbourhood) - mean * mean
        deviation = np.sqrt(variance.clip(min=0))
        if region is not None:
            inside = ndimage.uniform_filter((region != 0).astype(np.float32), neighbourhood)
            deviation[inside < 1 - 1e-3] = 0
        sums = np.pad(deviation, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
        detail = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side]
        detail += sums[:-side, :-side]
        # Rounded, so that equal squares are equal whatever the order of summation.
        best = int(np.argmax(np.round(detail, 6)))
        row, column = divmod(best, detail.shape[1])
    return row / rows, column / columns, side / rows, side / columns


def comparison_picture(
    path: str | Path,
    panels: Sequence[tuple[str, NDArray[Any]]],
    value_range: tuple[float, float],
    inset: Inset | None = None,
    caption: str = "",
) -> None:
    """Draw images of one field of view side by side, each with the same detail magnified below.

    All panels have the same size on the page whatever their pixel counts, so an input of 64
    pixels and its enlargement of 512 show the same anatomy at the same place. Pixels larger than
    the screen's stay squares (nearest), smaller ones are averaged. The file is a grey PNG below
    about 1.5 MB.

    Args:
        path: PNG file; it is complete or not there.
        panels: (title, image (rows, columns)) from left to right; one field of view and unit.
        value_range: physical values drawn black and white, for all panels alike.
        inset: the detail (row, column, height, width) as fractions of the image, framed above and
            magnified below; None draws no second row. See `best_inset`.
        caption: a sentence below; wrapped.

    Raises:
        ValueError: no panels, an image that is not two-dimensional, an empty range or an inset
            that leaves the image.
        UserError: the file cannot be written.
    """
    _check(panels, value_range, inset)
    rows, columns = panels[-1][1].shape
    # of each row of panels, in panel widths
    heights = [min(max(rows / columns, 1 / LONGEST), LONGEST)]
    if inset is not None:
        heights.append(inset[2] * rows / (inset[3] * columns))
    width = _panel_width(len(panels), sum(heights))
    titles = [textwrap.wrap(title, int(width / CHARACTER_WIDTH)) for title, _ in panels]
    title_height = LINE_HEIGHT * max(len(lines) for lines in titles)
    page_width = len(panels) * (width + MARGIN) + MARGIN
    caption_lines = textwrap.wrap(caption, int((page_width - 2 * MARGIN) / CHARACTER_WIDTH))
    caption_height = LINE_HEIGHT * len(caption_lines) + MARGIN
    pixels = [round(width * height) for height in heights]
    page_height = MARGIN + title_height + sum(pixels) + MARGIN * len(pixels) + caption_height

    figure = Figure(
        figsize=(page_width / DOTS_PER_INCH, page_height / DOTS_PER_INCH),
        dpi=DOTS_PER_INCH,
        facecolor="white",
    )
    canvas = FigureCanvasAgg(figure)
    for index, ((_, image), lines) in enumerate(zip(panels, titles, strict=True)):
        left, top = MARGIN + index * (width + MARGIN), MARGIN + title_height
        _text(figure, left + width / 2, MARGIN, lines, "center")
        axes = _axes(figure, left, top, width, pixels[0])
        _draw(axes, image, value_range, (0.0, 0.0, 1.0, 1.0), (pixels[0], width))
        if inset is not None:
            _frame(axes, inset)
            axes = _axes(figure, left, top + pixels[0] + MARGIN, width, pixels[1])
            _draw(axes, image, value_range, inset, (pixels[1], width))
    _text(figure, MARGIN, page_height - caption_height, caption_lines, "left")
    _save_grey(canvas, path)


def _panel_width(count: int, height: float) -> int:
    """Pixels of a panel's width such that all panels together keep to the budget."""
    affordable = math.isqrt(int(PIXEL_BUDGET / (count * height)))
    return min(WIDEST_PANEL, max(NARROWEST_PANEL, affordable))


def _grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    share = (np.asarray(values, dtype=np.float32) - low) / (high - low)
    share = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0).clip(0.0, 1.0)
    return np.rint(share * 255.0).astype(np.uint8)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the page's upper left corner."""
    page_width, page_height = figure.get_size_inches() * DOTS_PER_INCH
    axes = figure.add_axes(
        (
            left / page_width,
            1 - (top + height) / page_height,
            width / page_width,
            height / page_height,
        )
    )
    axes.set_axis_off()
    return axes


def _draw(
    axes: Axes,
    image: NDArray[Any],
    value_range: tuple[float, float],
    view: Inset,
    screen: tuple[int, int],
) -> None:
    """Show the part `view` of `image` on axes of `screen` (rows, columns) pixels.

    Axes run over fractions of the image, so a view that cuts through the large pixels of an input
    shows exactly the same field as in its enlargement.
    """
    rows, columns = image.shape
    row, column, height, width = view
    first_row, last_row = math.floor(row * rows), math.ceil((row + height) * rows)
    first_column, last_column = math.floor(column * columns), math.ceil((column + width) * columns)
    part = image[first_row:last_row, first_column:last_column]
    larger = height * rows <= screen[0] and width * columns <= screen[1]
    axes.imshow(
        _grey(part, *value_range),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest" if larger else "hanning",
        extent=(first_column / columns, last_column / columns, last_row / rows, first_row / rows),
        aspect="auto",
    )
    axes.set_xlim(column, column + width)
    axes.set_ylim(row + height, row)


def _frame(axes: Axes, inset: Inset) -> None:
    row, column, height, width = inset
    frame = Rectangle((column, row), width, height, fill=False, edgecolor="white", linewidth=1.2)
    # A dark rim keeps the frame visible on bone and on air.
    frame.set_path_effects([withStroke(linewidth=3.0, foreground="black")])
    axes.add_patch(frame)


def _text(figure: Figure, x: float, top: float, lines: list[str], align: str) -> None:
    page_width, page_height = figure.get_size_inches() * DOTS_PER_INCH
    for number, line in enumerate(lines):
        y = 1 - (top + number * LINE_HEIGHT) / page_height
        # parse_math off: a "$" in a file name is a dollar sign.
        figure.text(x / page_width, y, line, fontsize=9, ha=align, va="top", parse_math=False)


def _save_grey(canvas: FigureCanvasAgg, path: str | Path) -> None:
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L")
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True, dpi=(DOTS_PER_INCH, DOTS_PER_INCH))
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getvalue())


def _check(
    panels: Sequence[tuple[str, NDArray[Any]]],
    value_range: tuple[float, float],
    inset: Inset | None,
) -> None:
    if not panels or any(np.ndim(image) != 2 or np.size(image) == 0 for _, image in panels):
        raise ValueError("expected at least one panel, each with an image (rows, columns)")
    if not value_range[0] < value_range[1]:
        raise ValueError(f"value range {value_range} is empty: expected (low, high), low < high")
    if inset is not None:
        row, column, height, width = inset
        margin = 1e-9  # fractions of pixel counts do not add up exactly
        inside = min(row, column) >= -margin and max(row + height, column + width) <= 1 + margin
        if not inside or min(height, width) <= 0:
            raise ValueError(f"inset {inset} is not a part of the image in fractions of it")
