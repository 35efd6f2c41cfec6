"""Folders of pictures, as reconstruction programs of micro-CT write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from dicom_helpers import chest
from PIL import Image

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

GREY = np.clip((chest(5, 24, 20) + 1024) / 8, 0, 255).astype(np.uint8)
WIDE = (GREY.astype(np.uint16) + 1) * 200


def write(folder: Path, voxels: np.ndarray, name: str = "lung__rec{:08d}.bmp") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, section in enumerate(voxels):
        Image.fromarray(section).save(folder / name.format(index + 8))
    return folder


@pytest.mark.parametrize(
    ("ending", "voxels"),
    [("bmp", GREY), ("png", GREY), ("png", WIDE), ("jp2", GREY), ("jp2", WIDE), ("BMP", GREY)],
)
def test_every_kind_of_picture(tmp_path: Path, ending: str, voxels: np.ndarray) -> None:
    folder = write(tmp_path / "lung", voxels, f"s{{}}.{ending}")  # 9 before 10
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, voxels)
    assert volume.array.dtype == voxels.dtype
    assert not volume.spacing_known
    np.testing.assert_array_equal(volume.affine, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert find_volumes([str(tmp_path)]) == [folder]
    assert read_volume(folder, None, (0.02, 0.02, 0.03)).spacing == pytest.approx(
        (0.02, 0.02, 0.03)
    )


def test_jpeg_loses_a_little_and_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY, "s{}.jpg")
    difference = np.abs(read_volume(folder).array.astype(int) - GREY.astype(int))
    assert 0 < difference.mean() < 8


SKYSCAN = """[System]
Scanner=Skyscan1172
[Acquisition]
Image Pixel Size (um)=    13.50
Scaled Image Pixel Size (um)=    13.50
[Reconstruction]
Reconstruction Program=NRecon
First Section=8
Section to Section Step={step}
Result File Type=BMP
Pixel Size (um)=26.41304
HU Calibration=OFF
100 % done
[File name convention]
Filename Prefix=lung__rec
"""


def test_the_voxel_size_of_the_scanners_own_log(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY)
    Image.fromarray(GREY[0]).save(folder / "lung__rec_spr.bmp")  # SkyScan's projection
    (folder / "lung__rec.log").write_text(SKYSCAN.format(step=1), encoding="latin-1")
    volume = read_volume(folder)
    assert volume.num_slices == len(GREY)
    assert volume.spacing == pytest.approx((0.02641304,) * 3)
    assert volume.spacing_known
    (folder / "lung__rec.log").write_text(SKYSCAN.format(step=2))
    assert read_volume(folder).spacing[2] == pytest.approx(2 * 0.02641304)
    (folder / "lung__rec.log").write_text(SKYSCAN.partition("[Reconstruction]")[0])
    assert read_volume(folder).spacing[0] == pytest.approx(0.0135)
    for text in ("", "no log of a scanner", "[Reconstruction]\nPixel Size (um)=unknown\n"):
        (folder / "lung__rec.log").write_text(text)
        assert not read_volume(folder).spacing_known


def test_two_logs_of_two_sizes_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY)
    (folder / "a.log").write_text(SKYSCAN.format(step=1))
    (folder / "b.log").write_text(SKYSCAN.format(step=1).replace("26.41304", "13.2"))
    with pytest.raises(UserError, match=r"a\.log and b\.log state two voxel sizes, 26\.413 and"):
        read_volume(folder)
    assert read_volume(folder, None, (1, 1, 1)).spacing == (1, 1, 1)


def test_pictures_beside_results_are_no_volume(tmp_path: Path) -> None:
    write(tmp_path / "results", GREY[:2], "preview{}.png")
    write(tmp_path / "other", GREY, "one{}.png")
    Image.fromarray(GREY[0]).save(tmp_path / "other" / "overview.png")
    with pytest.raises(UserError, match="no volume in"):
        find_volumes([str(tmp_path)])


@pytest.mark.parametrize(
    ("mode", "message"),
    [("RGB", r"s9\.png is in colour \(RGB\)"), ("P", r"s9\.png is in colour \(P\)")],
)
def test_colour_is_refused(tmp_path: Path, mode: str, message: str) -> None:
    folder = write(tmp_path / "lung", GREY, "s{}.png")
    colours = np.repeat(GREY[1][..., None], 3, axis=-1)
    colours[..., 2] = 0
    picture = Image.fromarray(colours)
    (picture if mode == "RGB" else picture.quantize(16)).save(folder / "s9.png")
    with pytest.raises(UserError, match=message):
        read_volume(folder)


def test_a_palette_of_greys_is_applied(tmp_path: Path) -> None:
    for index, section in enumerate(GREY):
        picture = Image.fromarray(255 - section).convert("P")
        picture.putpalette([255 - grey for grey in range(256) for _ in range(3)])
        picture.save(tmp_path / f"s{index}.png")
    np.testing.assert_array_equal(read_volume(tmp_path).array, GREY)


def test_a_turned_picture_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY, "s{}.jpg")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(GREY[1]).save(folder / "s9.jpg", exif=exif)
    with pytest.raises(UserError, match=r"s9\.jpg states the orientation 6, turned or mirrored"):
        read_volume(folder)


def test_another_size_or_type_among_the_slices(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY, "s{}.png")
    Image.fromarray(GREY[1][:-1]).save(folder / "s9.png")
    with pytest.raises(UserError, match=r"s9\.png has 20x23 pixels of uint8, s8\.png has 20x24"):
        read_volume(folder)
    Image.fromarray(WIDE[1]).save(folder / "s9.png")
    with pytest.raises(UserError, match=r"s9\.png has 20x24 pixels of uint16"):
        read_volume(folder)


@pytest.mark.parametrize("ending", ["bmp", "png", "jpg", "jp2"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_off(tmp_path: Path, ending: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 64, 64)).astype(np.uint8)
    folder = write(tmp_path / "lung", noise, f"s{{}}.{ending}")
    path = folder / f"s10.{ending}"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=rf"s10\.{ending} cannot be read"):
        read_volume(folder)
    assert not list((tmp_path / "cache").glob("[!.]*"))


def test_acquisition_and_reconstruction_may_round_alike(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY)
    (folder / "lung.log").write_text(SKYSCAN.partition("[Reconstruction]")[0])
    (folder / "lung__rec.log").write_text(SKYSCAN.format(step=1))
    (folder / "other.log").write_text("a word\n  and an indented line\n")
    assert read_volume(folder).spacing == pytest.approx((0.02641304,) * 3)


@pytest.mark.parametrize(("signed", "bits"), [(True, 16), (False, 12)])
def test_jpeg_2000_as_it_is_stored(tmp_path: Path, signed: bool, bits: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    stored = WIDE.astype(np.int16) - 20000 if signed else WIDE // 16
    for index, section in enumerate(stored):
        packed = imagecodecs.jpeg2k_encode(section, level=0, bitspersample=bits, codecformat="jp2")
        (tmp_path / f"s{index}.jp2").write_bytes(packed)
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored)


@pytest.mark.parametrize(("voxels", "ending"), [(GREY, "jp2"), (WIDE, "jp2"), (WIDE, "j2k")])
def test_usual_jpeg_2000_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voxels: np.ndarray, ending: str
) -> None:
    monkeypatch.setattr("data.formats.picture_stack._decode_jpeg2000", pytest.fail)
    folder = write(tmp_path / "lung", voxels, f"s{{}}.{ending}")
    np.testing.assert_array_equal(read_volume(folder).array, voxels)


def test_pictures_beside_a_tiff_are_no_stack_of_either(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY)
    tifffile.imwrite(folder / "overview.tif", GREY[0], photometric="minisblack")
    with pytest.raises(UserError, match=r"holds TIFF files and a stack of pictures \(over"):
        read_volume(folder)


def test_coloured_pictures_beside_a_scan_are_no_volume(tmp_path: Path) -> None:
    write(tmp_path / "shots", np.repeat(GREY[..., None], 3, axis=-1) // 2, "fig{}.png")
    (tmp_path / "ct.nii").touch()
    assert find_volumes([str(tmp_path)]) == [tmp_path / "ct.nii"]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY, "s{}.bmp")
    content = bytearray((folder / "s9.bmp").read_bytes())
    content[18:26] = (100_000).to_bytes(4, "little") * 2  # width and height
    (folder / "s9.bmp").write_bytes(content)
    with pytest.raises(UserError, match=r"s9\.bmp cannot be read"):
        read_volume(folder)


def test_damage_that_one_decoder_of_jpeg_2000_lets_pass(tmp_path: Path) -> None:
    folder = write(tmp_path / "lung", GREY, "s{}.jp2")
    path = folder / "s9.jp2"
    content = path.read_bytes()
    place = content.index(b"\xff\x90") + 6  # the length of the tile part
    path.write_bytes(content[:place] + b"\x7f" + content[place + 1 :])
    with pytest.raises(UserError, match=r"s9\.jp2 cannot be read"):
        read_volume(folder)
