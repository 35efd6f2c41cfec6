"""One slice to enlarge, and how much of it has any influence on what is wanted.

`enlarge_in_tiles` cuts it as the published test does: tiles with norm statistics of their own,
seams and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.drawn_texture import TEXTURE_CONVOLUTIONS, slice_noise
from models.inference.norm_scope import FEWEST_PIXELS, at_least
from util.errors import UserError


@dataclass(frozen=True)
class SliceJob:
    """One slice to enlarge."""

    image: np.ndarray  # float32 (rows, columns) in [-1, 1], of any size
    # mask (rows, columns), not empty, whose pixels give the norm statistics; None takes them all
    scope: np.ndarray | None = None
    # mask (rows, columns), not empty, of the pixels whose enlargement is wanted; what lies away
    # from them is left at 0 where that saves work. None for all.
    needed: np.ndarray | None = None
    index: int = 0  # of the slice among those computed: its texture is drawn by it
    draw: int = 0  # another one is another texture of the same slice
    texture: float | None = None  # its share, 0 to 1; None takes the resolver's


@dataclass(frozen=True)
class Crop:
    """What is left of a job."""

    job: SliceJob  # with image and scope cropped, the scope grown to `FEWEST_PIXELS`
    # rows (first, last) of the cropped image that are wanted; None for all
    rows: tuple[int, int] | None
    # top, left: place of the cropped image in the whole one
    top: int
    left: int
    shape: tuple[int, int]  # (rows, columns) of the whole image

    def noise(self, channels: int) -> np.ndarray:
        """float32 (channels, rows, columns): what of the whole slice's noise lies in the crop."""
        rows, columns = self.job.image.shape
        noise = slice_noise(channels, self.shape, self.job.index, self.job.draw)
        return noise[:, self.top : self.top + rows, self.left : self.left + columns]

    def paste(self, enlarged: np.ndarray, scale: int) -> np.ndarray:
        """The crop's enlargement in its place, zeros around it."""
        if self.job.image.shape == self.shape:
            return enlarged
        whole = np.zeros((self.shape[0] * scale, self.shape[1] * scale), dtype=enlarged.dtype)
        top, left = self.top * scale, self.left * scale
        whole[top : top + enlarged.shape[0], left : left + enlarged.shape[1]] = enlarged
        return whole


def crop_job(job: SliceJob, reach: int, from_slice: bool) -> Crop:
    """Leave out what has no influence on the wanted pixels.

    Args:
        job: its `needed` mask says what is wanted.
        reach: pixels around an output pixel that it depends on, see `receptive_radius`.
        from_slice: whether norm statistics come from all pixels. Then all have influence, and only
            the last layer can leave rows out.
    """
    shape = (int(job.image.shape[0]), int(job.image.shape[1]))
    scope = None if job.scope is None else at_least(job.scope != 0, FEWEST_PIXELS)
    if job.needed is None:
        return Crop(replace(job, scope=scope), None, 0, 0, shape)
    rows, _ = bounds(job.needed)
    if from_slice:
        return Crop(job, rows, 0, 0, shape)
    influential = job.needed != 0 if scope is None else (job.needed != 0) | scope
    (top, bottom), (left, right) = bounds(influential)
    top, left = max(0, top - reach), max(0, left - reach)
    place = (slice(top, bottom + reach), slice(left, right + reach))
    scope = None if scope is None else scope[place]
    left_over = replace(job, image=job.image[place], scope=scope, needed=None)
    return Crop(left_over, (rows[0] - top, rows[1] - top), top, left, shape)


def receptive_radius(blocks: int, textured: bool = False) -> int:
    """Input pixels on each side that an output pixel of G_A depends on.

    3 for the first 7x7 convolution, 2 a residual block, 1 behind them, 3 for texture, 1 + 1/2 +
    1/4 ... for the upsampling and 3 of the smallest pixels for the last: below 3 + 2 * blocks + 1
    + 2 + 3/2, without texture.
    """
    return 3 + 2 * blocks + 1 + (TEXTURE_CONVOLUTIONS if textured else 0) + 2 + 2


def bounds(mask: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and one past the last row, then column, that a mask (rows, columns) touches."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


def grouped(
    jobs: Iterable[SliceJob | None], group_size: Callable[[int, int], int]
) -> Iterator[list[SliceJob | None]]:
    """Join neighbouring jobs that can share a call: one size and texture, all pixels in scope.

    Args:
        jobs: None stands for a slice with nothing to do and is a group of its own.
        group_size: (rows, columns) -> how many may share a call.
    """
    group: list[SliceJob | None] = []
    kind: object = None
    for job in jobs:
        if job is None or job.scope is not None or job.needed is not None:
            if group:
                yield group
            group = []
            yield [job]
            continue
        if group and (job.image.shape, job.texture) != kind:
            yield group
            group = []
        group.append(job)
        kind = (job.image.shape, job.texture)
        if len(group) >= group_size(int(job.image.shape[0]), int(job.image.shape[1])):
            yield group
            group = []
    if group:
        yield group


def refuse_unfit(volume: np.ndarray, mask: np.ndarray | None) -> None:
    """Refuse what is no volume, or slice, of finite numbers with a mask of its shape.

    Raises:
        UserError: says what was got.
    """
    shape, mask_shape = np.shape(volume), None if mask is None else np.shape(mask)
    if len(shape) not in (2, 3) or 0 in shape or mask_shape not in (None, shape):
        raise UserError(
            f"volume of shape {shape} and mask of shape {mask_shape}: give (slices, rows, columns) "
            "in both"
        )
    if not np.isfinite(volume).all():
        raise UserError(
            "the volume holds NaN or infinite values: put numbers in their place, -1000 HU is air"
        )


def enlarge_in_tiles(
    image: np.ndarray, tile: int, scale: int, enlarge: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Cut a slice into tiles and enlarge each as if it were a slice of its own.

    Args:
        image: float32 (rows, columns) in [-1, 1].
        tile: edge of a tile in input pixels. One at the far border is moved inwards to its full
            size, then cut.
        scale: of the enlargement.
        enlarge: (rows, columns) -> (rows * scale, columns * scale).

    Returns:
        float32 (rows * scale, columns * scale).
    """
    rows, columns = image.shape
    enlarged = np.empty((rows * scale, columns * scale), dtype=np.float32)
    for top, bottom in tile_edges(rows, tile):
        for left, right in tile_edges(columns, tile):
            first_row, first_column = max(0, bottom - tile), max(0, right - tile)
            part = enlarge(image[first_row:bottom, first_column:right])
            enlarged[top * scale : bottom * scale, left * scale : right * scale] = part[
                (top - first_row) * scale :, (left - first_column) * scale :
            ]
    return enlarged


def tile_edges(length: int, tile: int) -> list[tuple[int, int]]:
    """Cut 0..length into pieces [start, stop) of `tile`, the last one shorter where needed."""
    return [(start, min(start + tile, length)) for start in range(0, length, tile)]
