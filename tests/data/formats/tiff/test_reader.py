"""TIFF files and stack folders: same voxels, same place, irregular ones refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
import tifffile
from cache_helpers import cache_files, in_cache

from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

VOXELS = np.random.default_rng(0).integers(0, 60000, (12, 30, 40)).astype(np.uint16)


def write_stack(folder: Path, voxels: np.ndarray = VOXELS, name: str = "rec_{}.tif") -> Path:
    """One file per slice, numbered without leading zeros so that names do not sort."""
    folder.mkdir(parents=True)
    for index, pixels in enumerate(voxels):
        tifffile.imwrite(folder / name.format(index), pixels)
    return folder


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_contiguous_file_is_mapped_in_place(
    tmp_path: Path, byteorder: Literal["<", ">"], bigtiff: bool, dtype: type
) -> None:
    voxels: np.ndarray = (VOXELS % 256).astype(dtype)
    path = tmp_path / "a b.tif"
    tifffile.imwrite(path, voxels, byteorder=byteorder, bigtiff=bigtiff, photometric="minisblack")
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels)
    np.testing.assert_array_equal(volume.read_slice(5), voxels[5].astype(np.float32))
    assert not in_cache(volume)
    assert volume.name == "a b"
    assert volume.size == (40, 30, 12)


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"tile": (16, 16)}])
def test_packed_or_tiled_file_is_decoded_once(tmp_path: Path, options: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", VOXELS, photometric="minisblack", **options)
    volume = read_volume(tmp_path / "a.tiff")
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert in_cache(volume)
    before = cache_files()[0].stat().st_ino
    read_volume(tmp_path / "a.tiff")
    assert [path.stat().st_ino for path in cache_files()] == [before]


def write_pages(path: Path, pages: list[np.ndarray]) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for pixels in pages:
            writer.write(pixels, contiguous=False, metadata=None)
    return path


def test_scattered_pages_and_single_page(tmp_path: Path) -> None:
    volume = read_volume(write_pages(tmp_path / "a.tif", list(VOXELS)))
    np.testing.assert_array_equal(volume.array, VOXELS)
    volume = read_volume(write_pages(tmp_path / "b.tif", [VOXELS[0]]))
    np.testing.assert_array_equal(volume.array, VOXELS[:1])


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX"])
def test_imagej_stacks_under_any_axis_name(tmp_path: Path, axes: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, imagej=True, metadata={"axes": axes})
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array, VOXELS)


@pytest.mark.parametrize("options", [{}, {"imagej": True, "metadata": {"axes": "ZYX"}}])
def test_many_slices_behind_one_page_header(tmp_path: Path, options: dict) -> None:
    """How ImageJ and tifffile write stacks beyond 4 GB."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, truncate=True, **options)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert not in_cache(volume)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"a\.tif (is truncated|cannot be read)"):
        read_volume(path)


def test_black_and_white_becomes_uint8(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS > 30000, photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array, VOXELS > 30000)


def test_folder_and_file_agree(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS)
    file = read_volume(tmp_path / "a.tif")
    folder = read_volume(write_stack(tmp_path / "a stack"))
    np.testing.assert_array_equal(folder.array, VOXELS)
    np.testing.assert_array_equal(folder.affine, file.affine)
    assert folder.slice_digests() == file.slice_digests()
    assert folder.name == "a stack"
    assert in_cache(folder)


def test_affine_is_the_one_that_itk_gives(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS.astype(np.uint8), photometric="minisblack")
    image = sitk.ReadImage(str(tmp_path / "a.tif"))
    assert image.GetOrigin() == (0, 0, 0)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    volume = read_volume(tmp_path / "a.tif", tiff_spacing=(0.02, 0.03, 0.05))
    np.testing.assert_array_equal(volume.affine, np.diag([-0.02, -0.03, 0.05, 1.0]))
    assert volume.spacing_known


def test_spacing_unknown_and_given(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s")
    volume = read_volume(folder)
    assert volume.spacing == (1.0, 1.0, 1.0)
    assert not volume.spacing_known
    volume = read_volume(folder, tiff_spacing=(0.02, 0.02, 0.04))
    assert volume.spacing == (0.02, 0.02, 0.04)
    assert volume.spacing_known


@pytest.mark.parametrize("stating", [0, 2, 3])
def test_a_stack_has_the_voxel_size_that_some_of_its_files_state(
    tmp_path: Path, stating: int
) -> None:
    folder = write_stack(tmp_path / "s", VOXELS[:4])
    path, unit = folder / f"rec_{stating}.tif", "CENTIMETER"
    tifffile.imwrite(path, VOXELS[stating], resolution=(500, 500), resolutionunit=unit)
    volume = read_volume(folder)
    assert volume.spacing_known
    assert volume.spacing == pytest.approx((0.02,) * 3)
    np.testing.assert_array_equal(volume.array, VOXELS[:4])
    tifffile.imwrite(folder / "rec_1.tif", VOXELS[1], resolution=(400, 400), resolutionunit=unit)
    with pytest.raises(UserError, match=r"states voxels of 0\.02\d* x .* mm, rec_\d\.tif of 0\.02"):
        read_volume(folder)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_impossible_spacing(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match=r"voxel size .* three positive numbers"):
        read_volume(write_stack(tmp_path / "s"), tiff_spacing=spacing)


def test_pages_of_different_shape_or_type(tmp_path: Path) -> None:
    pages = list(VOXELS)
    for name, odd in (("shape", VOXELS[5, :20]), ("type", VOXELS[5].astype(np.uint8))):
        for place in (0, 1, 5, 11):  # tifffile itself looks at some of them only
            mixed = [*pages[:place], odd, *pages[place + 1 :]]
            path = write_pages(tmp_path / f"{name}.tif", mixed)
            with pytest.raises(UserError, match=rf"{name}\.tif holds pages of different shapes"):
                read_volume(path)
        folder = write_stack(tmp_path / name)
        tifffile.imwrite(folder / "rec_5.tif", odd)
        with pytest.raises(UserError, match=r"rec_5\.tif has a page of .* first has 30x40 uint16"):
            read_volume(folder)
    assert cache_files() == []


def test_pages_packed_in_different_ways(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for index, pixels in enumerate(VOXELS):
            packing = "zlib" if index == 5 else None
            writer.write(pixels, contiguous=False, metadata=None, compression=packing)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array, VOXELS)


def test_rgb(tmp_path: Path) -> None:
    rgb = np.zeros((4, 30, 40, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    tifffile.imwrite(
        tmp_path / "p.tif", rgb[0].transpose(2, 0, 1), planarconfig="separate", photometric="rgb"
    )
    for name in ("a", "p"):
        with pytest.raises(UserError, match=rf"{name}\.tif is an RGB"):
            read_volume(tmp_path / f"{name}.tif")
    folder = tmp_path / "s"
    folder.mkdir()
    for index in range(3):
        tifffile.imwrite(folder / f"{index}.tif", rgb[0], photometric="rgb")
    with pytest.raises(UserError, match=r"0\.tif is an RGB"):
        read_volume(folder)


def test_time_points_and_channels(tmp_path: Path) -> None:
    voxels = VOXELS.reshape(3, 4, 30, 40)
    tifffile.imwrite(tmp_path / "t.tif", voxels, imagej=True, metadata={"axes": "TZYX"})
    tifffile.imwrite(tmp_path / "q.tif", voxels, photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "c.ome.tif",
        VOXELS[:3],
        ome=True,
        metadata={"axes": "CYX"},
        photometric="minisblack",
    )
    for name, message in (("t", "time points"), ("q", "time points"), (r"c\.ome", "3 channels")):
        with pytest.raises(UserError, match=rf"{name}\.tif has .*{message}"):
            read_volume(tmp_path / f"{name}.tif".replace("\\", ""))


@pytest.mark.parametrize("packed", [False, True])
def test_nan_and_complex_voxels(tmp_path: Path, packed: bool) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[7, 3, 3] = np.nan
    packing = "zlib" if packed else None
    tifffile.imwrite(tmp_path / "a.tif", voxels, photometric="minisblack", compression=packing)
    with pytest.raises(UserError, match=r"a\.tif holds 1 NaN or infinite voxels in slice 7"):
        read_volume(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "c.tif", VOXELS.astype(np.complex64), photometric="minisblack")
    with pytest.raises(UserError, match=r"c\.tif has complex64 voxels"):
        read_volume(tmp_path / "c.tif")
    assert cache_files() == []


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.97, 0.995, 0.999])
@pytest.mark.parametrize("kind", ["shaped", "imagej", "ome", "plain", "zlib", "pages"])
def test_truncated_at_any_place(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "a.tif"
    if kind == "pages":
        write_pages(path, list(VOXELS))
    else:
        options: dict[str, dict] = {
            "shaped": {},
            "imagej": {"imagej": True},
            "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
            "plain": {"metadata": None},
            "zlib": {"compression": "zlib"},
        }
        tifffile.imwrite(path, VOXELS, **options[kind])
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(UserError, match=r"a\.tif (cannot be read|is truncated|lacks)"):
        read_volume(path)
    assert cache_files() == []


@pytest.mark.parametrize(
    "content", [b"", b"II", b"nonsense" * 20, b"II*\0\x08\0\0\0" + b"\xff" * 50]
)
def test_not_a_tiff(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tif cannot be read as TIFF"):
        read_volume(tmp_path / "a.tif")


def test_chain_of_pages_that_bites_its_tail(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", [VOXELS[0]])
    with tifffile.TiffFile(path) as tiff:
        first, tags = tiff.pages.first.offset, len(tiff.pages.first.tags)
    raw = bytearray(path.read_bytes())
    link = first + 2 + 12 * tags
    raw[link : link + 4] = first.to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.tif cannot be read as TIFF"):
        read_volume(path)


def test_stack_of_multi_page_files(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s")
    tifffile.imwrite(folder / "rec_3.tif", VOXELS)
    with pytest.raises(UserError, match=r"rec_3\.tif holds several pages"):
        read_volume(folder)


@pytest.mark.shared
def test_real_stack_and_real_file(shared_data: Path) -> None:
    stack = read_volume(shared_data / "micro" / "LHDL_3155_D_4_bc_tif")
    assert stack.size == (200, 200, 200)
    assert not stack.spacing_known
    last = shared_data / "micro" / "LHDL_3155_D_4_bc_tif" / "3155_D_4_bc_0199.tif"
    np.testing.assert_array_equal(stack.array[199], tifffile.imread(last))
    fly = read_volume(shared_data / "micro" / "fly_150x256x256.tif")
    assert fly.size == (256, 256, 150)
    assert not fly.spacing_known
    assert not in_cache(fly)
    whole = tifffile.imread(shared_data / "micro" / "fly_150x256x256.tif")
    np.testing.assert_array_equal(fly.array, whole)
