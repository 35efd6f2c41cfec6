"""A folder of pictures (BMP, PNG, JPEG, JPEG 2000) as a volume: what reconstruction programs of
micro-CT write when they write no TIFF. Decoded once, slice by slice, and mapped from the cache."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.formats.scan_log import logged_spacing
from data.formats.stack_order import NUMBER, order_by_number
from data.formats.tiff.spacing import Spacing
from data.volumes.cache import cached_file, decoded_name, files_key, map_slices, write_slices
from data.volumes.geometry import screen_affine
from data.volumes.names import PICTURE_ENDINGS, PREVIEWS, is_mask_name, natural_key
from data.volumes.volume import Volume
from util.errors import UserError, reason_of

FEWEST = 3  # pictures of a stack: one or two are previews
MOST_PIXELS = 1 << 28  # of a slice; Pillow refuses a file that claims more
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # it warns from here on, and refuses from twice of it
SIZES_OF_JPEG2000 = b"\xff\x4f\xff\x51"  # start of its stream; 42 bytes on, bits less 1 and sign
LONGEST_HEAD = 1 << 16  # bytes before it; behind longer ones a file counts as odd
ORIENTATION = 274  # Exif
GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")


def picture_files(folder: Path) -> list[Path]:
    """Pictures directly inside a folder in natural order; hidden files, masks and previews left
    out."""
    return sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in PICTURE_ENDINGS
            and not path.name.startswith(".")
            and not path.stem.lower().endswith(PREVIEWS)
            and not is_mask_name(path)
            and path.is_file()
        ),
        key=lambda path: natural_key(path.name),
    )


def is_picture_stack(files: Sequence[Path]) -> bool:
    """Whether pictures are slices of one stack by their names: alike but for a number."""
    patterns = {NUMBER.sub("#", path.name.lower()) for path in files}
    return len(files) >= FEWEST and len(patterns) == 1 and "#" in next(iter(patterns))


def is_grey_stack(files: Sequence[Path]) -> bool:
    """Whether pictures are a stack whose first slice is grey, as one that nobody named must be."""
    if not is_picture_stack(files):
        return False
    try:
        with Image.open(files[0]) as image:
            _check_meaning(image, files[0])
    except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def read_picture_folder(folder: Path, cache_dir: Path, spacing: Spacing | None) -> Volume:
    """Read a folder of pictures, sorted by the number in their names.

    Rows and columns lie as on the screen (`screen_affine`). The voxel size is the one
    given, or that of the scanner's log; pictures state none that could be believed.

    Raises:
        UserError: names without one order, pictures of several sizes or types, in colour, turned,
            or damaged.
    """
    files = order_by_number(picture_files(folder), folder)
    known = spacing or logged_spacing(folder)
    first = _decode(files[0])

    def slices() -> Iterator[np.ndarray]:
        for path in files:
            pixels = _decode(path)
            if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
                raise UserError(
                    f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels of {pixels.dtype}, "
                    f"{files[0].name} has {first.shape[1]}x{first.shape[0]} of {first.dtype}: "
                    "leave only the slices of one stack in the folder"
                )
            yield pixels

    def decode(target: Path) -> None:
        shape = (len(files), *first.shape)
        write_slices(target, slices(), (shape[0], shape[1], shape[2]), first.dtype, str(folder))

    unpacked = cached_file(cache_dir, decoded_name(files_key(files)), decode)
    affine = screen_affine(known or (1.0, 1.0, 1.0))
    return Volume(map_slices(unpacked), affine, str(folder), spacing_known=known is not None)


def _decode(path: Path) -> np.ndarray:
    """Grey values (rows, columns) of one picture, in its own type.

    Raises:
        UserError: colour, a turned picture, a damaged or cut-off file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_meaning(image, path)
                # It sees damage that the decoder of odd JPEG 2000 does not.
                pixels = np.asarray(image.convert("L") if image.mode == "P" else image)
                if image.format == "JPEG2000" and not _is_plain_jpeg2000(path):
                    pixels = _decode_jpeg2000(path)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of a damaged file Pillow raises errors of any type
        raise UserError(
            f"{path} cannot be read ({reason_of(error)}): copy or export it again"
        ) from error
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def _is_plain_jpeg2000(path: Path) -> bool:
    """Whether a JPEG 2000 file has 8 or 16 bits without a sign, which Pillow leaves as they are."""
    with path.open("rb") as stream:
        start = stream.read(LONGEST_HEAD)
    place = start.find(SIZES_OF_JPEG2000)
    return place >= 0 and start[place + 42 : place + 43] in (b"\x07", b"\x0f")


def _decode_jpeg2000(path: Path) -> np.ndarray:
    """Values as they are stored: Pillow would stretch 12 bits to 16, and move signed ones."""
    import imagecodecs

    pixels: np.ndarray = imagecodecs.jpeg2k_decode(path.read_bytes())
    if pixels.ndim != 2:
        raise ValueError(f"it has the shape {pixels.shape}, expected rows and columns")
    return pixels


def _check_meaning(image: Image.Image, path: Path) -> None:
    """Refuse what would change values or directions and is not applied."""
    palette = image.getpalette() if image.mode == "P" else None
    is_grey = palette is not None and palette[0::3] == palette[1::3] == palette[2::3]
    if image.mode not in GREY_MODES and not is_grey:
        raise UserError(f"{path} is in colour ({image.mode}): save the slices in grey")
    turned = image.getexif().get(ORIENTATION, 1)
    if turned != 1:
        raise UserError(
            f"{path} states the orientation {turned}, turned or mirrored, which programs read in "
            "two ways: save it upright (1)"
        )
