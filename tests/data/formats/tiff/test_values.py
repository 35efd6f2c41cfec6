"""Tags of TIFF that change what a stored number means are applied or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
import tifffile
from dicom_helpers import chest
from PIL import Image

from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

HU = chest(4, 24, 20)
GREY = np.clip((HU + 1024) / 8, 0, 255).astype(np.uint8)


def values(path: Path) -> np.ndarray:
    volume = read_volume(path)
    return np.stack([volume.read_slice(index) for index in range(volume.num_slices)])


@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_at_zero_is_turned(tmp_path: Path, compression: str | None, dtype: type) -> None:
    grey: np.ndarray = GREY.astype(dtype)
    stored = np.iinfo(dtype).max - grey
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(values(path), grey)
    if dtype == np.uint8:  # Pillow is the judge; ITK reads the first page of such a file so, too
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), grey[0])


def test_black_and_white_pictures(tmp_path: Path) -> None:
    bits = GREY > 100
    for photometric, name in (("minisblack", "b"), ("miniswhite", "w")):
        stored = bits if name == "b" else ~bits
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, photometric=photometric)
        np.testing.assert_array_equal(values(tmp_path / f"{name}.tif"), bits)


def test_signed_numbers_with_white_at_zero_mean_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", HU, photometric="miniswhite")
    with pytest.raises(UserError, match=r"a\.tif .*white at 0 in pixels of type int16"):
        read_volume(tmp_path / "a.tif")


def test_a_grey_palette_is_applied_and_one_of_colours_refused(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(256).astype(np.uint8)
    stored = np.argsort(order).astype(np.uint8)[GREY]
    table = np.repeat(order[None].astype(np.uint16) * 257, 3, axis=0)
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, stored, photometric="palette", colormap=table, metadata=None)
    np.testing.assert_array_equal(values(path), GREY)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("L")), GREY[0])
    table[2] = 0
    tifffile.imwrite(path, stored, photometric="palette", colormap=table, metadata=None)
    with pytest.raises(UserError, match=r"p\.tif has a palette of colours: save it in grey"):
        read_volume(path)


def test_each_file_of_a_stack_by_its_own_tags(tmp_path: Path) -> None:
    for index, page in enumerate(GREY):
        white = index % 2 == 1
        tifffile.imwrite(
            tmp_path / f"s{index}.tif",
            255 - page if white else page,
            photometric="miniswhite" if white else "minisblack",
        )
    np.testing.assert_array_equal(values(tmp_path), GREY)


def test_pages_of_one_file_that_differ_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for index, page in enumerate(GREY):
            writer.write(
                page, photometric="miniswhite" if index == 2 else "minisblack", metadata=None
            )
    with pytest.raises(UserError, match=r"photometric 1, .* page 2 .* photometric 0"):
        read_volume(path)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 8])
def test_turned_and_mirrored_pages_are_refused(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.tif"
    extra = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, GREY[0], photometric="minisblack", extratags=extra)
    with pytest.raises(UserError, match=rf"a\.tif states the orientation {orientation}, turned"):
        read_volume(path)


@pytest.mark.parametrize("photometric", ["rgb", "separated"])
def test_colour_is_refused(tmp_path: Path, photometric: str) -> None:
    samples = 3 if photometric == "rgb" else 4
    pixels = np.repeat(GREY[0][..., None], samples, axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric)
    with pytest.raises(UserError, match=r"a\.tif is an RGB or multi-component image"):
        read_volume(tmp_path / "a.tif")


def imagej(path: Path, stored: np.ndarray, calibration: str) -> None:
    """A file as Fiji writes it: signed numbers 32768 higher, and what to subtract."""
    text = f"ImageJ=1.54f\nimages={len(stored)}\nslices={len(stored)}\nunit=mm\n"
    tifffile.imwrite(
        path,
        stored,
        description=f"{text}{calibration}spacing=1.5\nloop=false\n",
        photometric="minisblack",
        resolution=(1 / 0.7, 1 / 0.7),
        metadata=None,
        software=None,
    )


@pytest.mark.parametrize(
    ("calibration", "slope", "intercept"),
    [
        ("cf=0\nc0=-32768.0\nc1=1.0\nvunit=HU\n", 1.0, -32768.0),
        ("cf=0\nc0=-1024\nc1=0.5\n", 0.5, -1024.0),
        ("cf=20\nc0=5\nc1=7\n", 1.0, 0.0),
        ("", 1.0, 0.0),
    ],
)
def test_the_calibration_of_imagej(
    tmp_path: Path, calibration: str, slope: float, intercept: float
) -> None:
    stored = (HU.astype(np.int32) + 32768).astype(np.uint16)
    imagej(tmp_path / "a.tif", stored, calibration)
    np.testing.assert_allclose(values(tmp_path / "a.tif"), stored * slope + intercept)


def test_an_inverting_table_of_imagej_is_refused(tmp_path: Path) -> None:
    text = "ImageJ=1.54f\nimages=4\nslices=4\ncf=0\nc0=-32768\nc1=1\n"
    stored = (HU.astype(np.int32) + 32768).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, description=text, photometric="miniswhite", metadata=None
    )
    with pytest.raises(UserError, match=r"a\.tif was saved by ImageJ with an inverting look-up"):
        read_volume(tmp_path / "a.tif")


def test_a_palette_of_eight_bits(tmp_path: Path) -> None:
    table = np.repeat(np.arange(256, dtype=np.uint16)[None], 3, axis=0)
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, GREY, photometric="palette", colormap=table, metadata=None)
    np.testing.assert_array_equal(values(path), GREY)


@pytest.mark.parametrize(
    "calibration", ["cf=3\nc0=1\nc1=2\nc2=3\n", "cf=0\nc0=1\nc1=0\n", "cf=0\n"]
)
def test_other_calibrations_are_refused(tmp_path: Path, calibration: str) -> None:
    imagej(tmp_path / "a.tif", GREY.astype(np.uint16), calibration)
    with pytest.raises(UserError, match=r"a\.tif has a calibration of ImageJ .*straight line"):
        read_volume(tmp_path / "a.tif")


def test_a_stack_whose_files_are_calibrated_unlike(tmp_path: Path) -> None:
    for index, page in enumerate(GREY):
        imagej(tmp_path / f"s{index}.tif", page[None], f"cf=0\nc0={-(index // 2)}\nc1=1\n")
    with pytest.raises(UserError, match=r"s2\.tif has another calibration of ImageJ than s0\.tif"):
        read_volume(tmp_path)


def test_itk_agrees_on_a_plain_stack(tmp_path: Path) -> None:
    for index, page in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"s{index}.tif", page, photometric="minisblack")
    names = [str(tmp_path / f"s{index}.tif") for index in range(len(GREY))]
    np.testing.assert_array_equal(values(tmp_path), sitk.GetArrayFromImage(sitk.ReadImage(names)))


def test_a_page_that_does_not_state_what_0_means_has_black_there(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    stored = np.arange(8 * 9, dtype=np.uint16).reshape(8, 9)
    tifffile.imwrite(path, stored, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags["PhotometricInterpretation"].offset
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, place, 60_000)  # another tag
    path.write_bytes(content)
    np.testing.assert_array_equal(read_volume(path).array, stored[None])
