"""Bytes promised against bytes there, and pages that lie in several files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

GREY = np.random.default_rng(0).integers(0, 4, (6, 48, 40)).astype(np.uint16)


def shorten_last_strip(path: Path, count: int) -> None:
    """Let the first page's last strip claim so many bytes."""
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags["StripByteCounts"]
    form = {3: "<H", 4: "<I"}[int(tag.dtype)]
    content = bytearray(path.read_bytes())
    struct.pack_into(
        form, content, tag.valueoffset + struct.calcsize(form) * (tag.count - 1), count
    )
    path.write_bytes(content)


@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "packbits", "zstd", "lzma"])
def test_a_strip_that_is_empty_or_too_short(
    tmp_path: Path, compression: str | None, count: int
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        GREY[0],
        photometric="minisblack",
        compression=compression,
        rowsperstrip=24,
        metadata=None,
    )
    np.testing.assert_array_equal(read_volume(path).array[0], GREY[0])
    shorten_last_strip(path, count)
    with pytest.raises(
        UserError, match=r"a\.tif (lacks pixels: a page has|cannot be read as TIFF)"
    ):
        read_volume(path)
    assert len(list((tmp_path / "cache").glob("*.partial"))) == 0


def test_a_stack_with_one_short_page_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    for index, page in enumerate(GREY):
        name = tmp_path / "s" / f"{index}.tif"
        name.parent.mkdir(exist_ok=True)
        tifffile.imwrite(name, page, photometric="minisblack", rowsperstrip=24, metadata=None)
    shorten_last_strip(tmp_path / "s" / "4.tif", 0)
    with pytest.raises(UserError, match=r"4\.tif lacks pixels: a page has 1920 bytes in 2 strips"):
        read_volume(tmp_path / "s")
    assert not list((tmp_path / "cache").glob("[!.]*"))


@pytest.mark.parametrize("tag", [256, 257, 258, 277, 278])
@pytest.mark.parametrize("number", [0, 65535])
def test_sizes_that_cannot_be_are_one_line(tmp_path: Path, tag: int, number: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, photometric="minisblack", compression="deflate")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags[tag].valueoffset
    struct.pack_into("<H", content, place, number)
    path.write_bytes(content)
    try:
        found = read_volume(path).array
    except UserError:
        return
    np.testing.assert_array_equal(found, GREY)  # the tag was not needed


def ome_of_two_files(folder: Path) -> tuple[Path, Path]:
    """Six slices as microscopes write them: three a file, one description for both."""
    folder.mkdir()
    first, second = folder / "a.ome.tif", folder / "b.ome.tif"
    blocks = []
    for name, start in ((first, 0), (second, 3)):
        for index in range(3):
            blocks.append(
                f'<TiffData FirstC="0" FirstT="0" FirstZ="{start + index}" IFD="{index}" '
                f'PlaneCount="1"><UUID FileName="{name.name}">urn:uuid:{name.stem[0] * 8}-0000-'
                f"0000-0000-000000000000</UUID></TiffData>"
            )
    for name, start in ((first, 0), (second, 3)):
        uuid = f"urn:uuid:{name.stem[0] * 8}-0000-0000-0000-000000000000"
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            'Type="uint16" SizeX="40" SizeY="48" SizeZ="6" SizeC="1" SizeT="1" '
            'PhysicalSizeX="20" PhysicalSizeY="20" PhysicalSizeZ="30">'
            '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
            + "".join(blocks)
            + "</Pixels></Image></OME>"
        )
        with tifffile.TiffWriter(name) as writer:
            for index in range(3):
                writer.write(
                    GREY[start + index],
                    photometric="minisblack",
                    description=xml if index == 0 else None,
                    metadata=None,
                )
    return first, second


def test_ome_tiff_of_several_files_is_one_volume(tmp_path: Path) -> None:
    first, second = ome_of_two_files(tmp_path / "ome")
    np.testing.assert_array_equal(tifffile.imread(first), GREY)  # the judge
    volume = read_volume(first)
    np.testing.assert_array_equal(volume.array, GREY)
    assert volume.spacing == pytest.approx((0.02, 0.02, 0.03))
    assert find_volumes([str(tmp_path / "ome")]) == [first]
    (tmp_path / "link").symlink_to(tmp_path / "ome")
    for words in ([str(first), str(second)], [f"{tmp_path}/ome/*.tif"], [f"{tmp_path}/link/*"]):
        assert [path.name for path in find_volumes(words)] == [first.name]
    # The key in the cache is of both files.
    pixels = second.read_bytes()
    at = pixels.index(GREY[5].tobytes())
    second.write_bytes(pixels[:at] + bytes(2) * GREY[5].size + pixels[at + 2 * GREY[5].size :])
    assert not read_volume(first).array[5].any()
    second.write_bytes(pixels[:-100])
    with pytest.raises(UserError, match=r"truncated|cannot be read"):
        read_volume(first)
    second.unlink()
    with pytest.raises(UserError, match=r"a\.ome\.tif"):
        read_volume(first)


@pytest.mark.parametrize("tag", [256, 258, 259, 262, 273, 279])
def test_a_tag_of_a_type_that_there_is_not(tmp_path: Path, tag: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, photometric="minisblack", compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags[tag].offset
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, place + 2, 4099)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"tag {tag} has the type 4099"):
        read_volume(path)
