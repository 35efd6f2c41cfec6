from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.formats.zarr_voxels
from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from data.formats.zarr_store import is_zarr, read_zarr
from data.formats.zarr_voxels import ZarrVoxels, address_of, is_address
from data.volumes.volume import Volume
from util.errors import UserError

zarr = pytest.importorskip("zarr")
VOXELS = np.random.default_rng(0).integers(-1000, 3000, (10, 12, 14)).astype(np.int16)


def store(path: Path, voxels: np.ndarray = VOXELS, **attributes: Any) -> Path:
    array = zarr.open(str(path), mode="w", shape=voxels.shape, chunks=(4,) * voxels.ndim,
                      dtype=voxels.dtype)  # fmt: skip
    array[:] = voxels
    array.attrs.update(attributes)
    return path


def ome(path: Path, version: str, voxels: np.ndarray = VOXELS, **changes: Any) -> Path:
    """An OME-Zarr image with a second, smaller level; voxels of 5 x 6 x 7 micrometres (x, y, z)."""
    group = zarr.open_group(str(path), mode="w")
    lead = voxels.ndim - 3
    for name, level in (("0", voxels), ("1", voxels[..., ::2, ::2])):
        made = zarr.open(str(path / name), mode="w", shape=level.shape, chunks=level.shape,
                         dtype=level.dtype)  # fmt: skip
        made[:] = level
    names = [*"tc"[:lead], *"zyx"]
    axes: Any = [
        {"name": name, "type": "space", "unit": "micrometer"} if name in "zyx" else {"name": name}
        for name in names
    ]
    scale = [*(1.0,) * lead, 7.0, 6.0, 5.0]
    datasets = [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]},
        {"path": "1"},
    ]
    image = {"axes": axes, "datasets": datasets, **changes}
    if version == "0.5":
        group.attrs.update({"ome": {"version": "0.5", "multiscales": [image]}})
    else:
        group.attrs.update({"multiscales": [{"version": version, **image}]})
    return path


def test_a_plain_array_is_a_volume_that_is_read_by_patches(tmp_path: Path) -> None:
    volume = read_volume(store(tmp_path / "lung.zarr", spacing=[0.03, 0.02, 0.01]))
    assert type(volume.array).__name__ == ZarrVoxels.__name__
    assert volume.name == "lung"
    assert volume.size == (14, 12, 10)
    assert volume.spacing == pytest.approx((0.01, 0.02, 0.03))
    assert volume.spacing_known
    np.testing.assert_array_equal(volume.read_slice(-1), VOXELS[-1])
    np.testing.assert_array_equal(volume.read_patch(3, 2, 5, 7, 9), VOXELS[3, 2:9, 5:14])
    with pytest.raises(IndexError):
        volume.read_patch(3, 6, 0, 7, 9)
    with pytest.raises(IndexError):
        volume.read_slice(10)


def test_digests_and_windows_are_those_of_the_same_voxels_elsewhere(tmp_path: Path) -> None:
    volume = read_volume(store(tmp_path / "lung.zarr"))
    assert volume.slice_digests() == Volume(VOXELS, np.eye(4), "a.nii").slice_digests()
    assert not volume.spacing_known


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("lead", [0, 2])
def test_ome_zarr_brings_its_full_resolution_and_voxel_size(
    tmp_path: Path, version: str, lead: int
) -> None:
    volume = read_volume(ome(tmp_path / "lung.ome.zarr", version, VOXELS[(None,) * lead]))
    assert volume.name == "lung"
    assert volume.size == (14, 12, 10)
    assert volume.spacing == pytest.approx((0.005, 0.006, 0.007))
    np.testing.assert_array_equal(volume.read_slice(4), VOXELS[4])
    other = read_volume(tmp_path / "lung.ome.zarr", tiff_spacing=(1.0, 2.0, 3.0))
    assert other.spacing == pytest.approx((1.0, 2.0, 3.0))


def test_an_ome_zarr_image_lies_where_its_transformations_put_it(tmp_path: Path) -> None:
    # OME-NGFF 0.4: the level's transformations in turn, then the image's; micrometres, z, y, x.
    level = [
        {"type": "scale", "scale": [7.0, 6.0, 5.0]},
        {"type": "translation", "translation": [70.0, 60.0, 50.0]},
    ]
    whole = [
        {"type": "identity"},
        {"type": "scale", "scale": [2.0, 3.0, 4.0]},
        {"type": "translation", "translation": [1000.0, -2000.0, 0.5]},
    ]
    image = ome(
        tmp_path / "a.zarr",
        "0.4",
        datasets=[{"path": "0", "coordinateTransformations": level}],
        coordinateTransformations=whole,
    )
    volume = read_volume(image)
    np.testing.assert_allclose(volume.spacing, (0.020, 0.018, 0.014))
    np.testing.assert_allclose(volume.affine[:3, 3], (-0.2005, 1.82, 1.14), rtol=1e-12)
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([-0.020, -0.018, 0.014]))
    named = read_volume(image, tiff_spacing=(1.0, 2.0, 3.0))
    np.testing.assert_allclose(named.affine[:3, 3], (-0.2005, 1.82, 1.14), rtol=1e-12)


def test_a_transformation_that_is_not_known_is_refused(tmp_path: Path) -> None:
    turned = [{"type": "rotation", "rotation": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]}]
    with pytest.raises(UserError, match="a transformation of type rotation"):
        read_volume(ome(tmp_path / "a.zarr", "0.4", coordinateTransformations=turned))


def test_axes_as_letters_and_without_a_scale(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", "0.3", axes=list("zyx"), datasets=[{"path": "0"}])
    assert not read_volume(path).spacing_known


def test_views_and_other_axes_read_the_same_voxels(tmp_path: Path) -> None:
    lazy = read_volume(store(tmp_path / "lung.zarr"))
    plain = Volume(VOXELS, lazy.affine, "plain")
    for cut in (slice(0, 10), slice(2, 7)):
        for axis in "zyx":
            ours, theirs = (
                volume.select_slices(cut.start, cut.stop).turned(axis) for volume in (lazy, plain)
            )
            assert ours.size == theirs.size
            np.testing.assert_array_equal(ours.affine, theirs.affine)
            for index in (0, ours.num_slices - 1, -2):
                np.testing.assert_array_equal(ours.read_slice(index), theirs.read_slice(index))
            height, width = ours.size[1] - 2, ours.size[0] - 1
            np.testing.assert_array_equal(
                ours.read_patch(1, 2, 1, height, width), theirs.read_patch(1, 2, 1, height, width)
            )


def test_another_process_opens_the_store_anew(tmp_path: Path) -> None:
    volume = read_volume(store(tmp_path / "lung.zarr")).select_slices(2, 8).turned("y")
    packed = pickle.dumps(volume)
    assert len(packed) < 3000  # the address, not the voxels
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.read_slice(3), volume.read_slice(3))


def test_a_forked_process_opens_the_store_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read_volume(store(tmp_path / "lung.zarr"))
    volume.read_slice(0)
    opened: list[object] = []
    original = data.formats.zarr_voxels.open_zarr

    def watched(path: str) -> Any:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(data.formats.zarr_voxels, "open_zarr", watched)
    volume.read_slice(1)
    assert opened == []
    monkeypatch.setattr(os, "getpid", lambda: -1)
    np.testing.assert_array_equal(volume.read_slice(2), VOXELS[2])
    volume.read_slice(3)
    assert len(opened) == 1


def test_an_address_is_opened_by_fsspec() -> None:
    array = zarr.open("memory://bucket/lung.zarr", mode="w", shape=VOXELS.shape, chunks=(4, 4, 4),
                      dtype=VOXELS.dtype)  # fmt: skip
    array[:] = VOXELS
    (path,) = find_volumes(["memory://bucket/lung.zarr"])
    volume = read_volume(path)
    assert volume.source == "memory://bucket/lung.zarr"
    assert volume.name == "lung"
    np.testing.assert_array_equal(volume.read_slice(5), VOXELS[5])


def test_addresses_survive_path() -> None:
    assert address_of(Path("s3://bucket/a.zarr")) == "s3://bucket/a.zarr"
    assert address_of(Path("/data/a.zarr")) == "/data/a.zarr"
    assert is_address(Path("https://host/a.zarr"))
    assert not is_address("folder/a.zarr")


def test_stores_are_found_in_folders(tmp_path: Path) -> None:
    plain, image = store(tmp_path / "in" / "a.zarr"), ome(tmp_path / "in" / "b.ome.zarr", "0.4")
    assert find_volumes([str(tmp_path / "in")]) == [plain, image]
    assert find_volumes([str(tmp_path / "in" / "*.zarr")]) == [plain, image]
    assert find_volumes([str(tmp_path / "in" / "**")]) == [plain, image]
    store(tmp_path / "in" / "a_mask.zarr")
    assert find_volumes([str(tmp_path / "in")]) == [plain, image]
    assert is_zarr(plain)
    assert not is_zarr(tmp_path)


def test_what_is_no_volume_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = ome(tmp_path / "several.zarr", "0.4", np.stack([VOXELS, VOXELS])[None])
    with pytest.raises(UserError, match=r"has shape \(1, 2, 10, 12, 14\): expected one volume"):
        read_volume(several)
    with pytest.raises(UserError, match="expected them to end in z, y, x"):
        read_volume(ome(tmp_path / "xyz.zarr", "0.4", axes=list("xyz")))
    with pytest.raises(UserError, match=r"has shape \(10, 12\)"):
        read_volume(store(tmp_path / "flat.zarr", VOXELS[:, :, 0]))
    group = tmp_path / "group.zarr"
    zarr.open_group(str(group), mode="w")
    store(group / "inner")
    with pytest.raises(UserError, match=r"give the array inside it \(inner\)"):
        read_volume(group)
    damages: list[dict[str, Any]] = [{"datasets": [{"path": "9"}]}, {"datasets": []}]
    for damage in damages:
        with pytest.raises(UserError, match="is a damaged OME-Zarr image"):
            read_volume(ome(tmp_path / "damaged.zarr", "0.4", **damage))
    broken = tmp_path / "broken.zarr"
    broken.mkdir()
    (broken / ".zarray").write_text("{")
    with pytest.raises(UserError, match="cannot be opened as Zarr"):
        read_volume(broken)
    spoilt = VOXELS.astype(np.float32)
    spoilt[3, 4, 5] = np.nan
    volume = read_volume(store(tmp_path / "nan.zarr", spoilt))
    volume.read_slice(2)
    with pytest.raises(UserError, match="NaN or infinite voxels"):
        volume.read_slice(3)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(UserError, match="needs the package zarr: pip install zarr"):
        read_zarr(tmp_path / "lung.zarr")


def test_damaged_metadata_of_an_inner_array_is_one_line(tmp_path: Path) -> None:
    nested = b'{"a": ' + b"[" * 100_000
    for damage in (b"\x8a\x8a", nested):
        group = tmp_path / f"group_{len(damage)}.zarr"
        zarr.open_group(str(group), mode="w", zarr_format=2)
        (group / "inner").mkdir()
        (group / "inner" / ".zarray").write_bytes(damage)
        with pytest.raises(UserError, match="is a damaged Zarr group"):
            read_volume(group)
        image = ome(tmp_path / f"image_{len(damage)}.zarr", "0.4")
        (image / "0" / "zarr.json").write_bytes(damage)
        with pytest.raises(UserError, match=r"is a damaged OME-Zarr image|cannot be opened"):
            read_volume(image)


def test_an_array_without_voxels_is_refused(tmp_path: Path) -> None:
    empty = np.empty((0, 12, 14), np.int16)
    with pytest.raises(UserError, match=r"has shape \(0, 12, 14\) in chunks of .* holds no voxel"):
        read_volume(store(tmp_path / "empty.zarr", empty))
    path = tmp_path / "chunks.zarr"
    made = zarr.open(str(path), mode="w", shape=VOXELS.shape, chunks=(4, 4, 4),
                     dtype=VOXELS.dtype, zarr_format=2)  # fmt: skip
    made[:] = VOXELS
    layout = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**layout, "chunks": [4, 0, 4]}))
    with pytest.raises(UserError, match=r"holds no voxel|cannot be opened as Zarr"):
        read_volume(path)


def test_chunks_that_are_not_there_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store(tmp_path / "a.zarr")
    read_volume(path)
    assert capsys.readouterr().err == ""
    chunks = [file for file in path.rglob("*") if file.is_file() and file.name[0] not in "z."]
    chunks[0].unlink()
    read_volume(path)
    told = capsys.readouterr().err
    assert told == (
        f"warning: 1 of {len(chunks)} chunks of {path} are not there, their voxels are 0: is the "
        "copy whole?\n"
    )


@pytest.mark.parametrize(
    "spacing", [["a", 1, 1], [1, 1], 5, None, [0, 1, 1], [-1, 1, 1], [float("nan"), 1, 1], {}]
)
def test_a_spacing_that_is_none_is_not_believed(tmp_path: Path, spacing: Any) -> None:
    assert not read_volume(store(tmp_path / "a.zarr", spacing=spacing)).spacing_known


def test_odd_metadata_is_one_line(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", "0.4")
    group = zarr.open_group(str(path), mode="a")
    group.attrs["ome"] = ["no", "mapping"]
    with pytest.raises(UserError, match=r"a\.zarr is a Zarr group without an OME-Zarr image"):
        read_volume(path)
    for number in range(40):
        group.create_group(f"a group with a long name, number {number}")
    with pytest.raises(UserError, match=r"and \d+ more"):
        read_volume(path)


@pytest.mark.parametrize("stated", [None, "x", [1], 5])
def test_an_attribute_ome_that_is_none(tmp_path: Path, stated: Any) -> None:
    volume = read_volume(store(tmp_path / "a.zarr", ome=stated, spacing=[3, 2, 1]))
    assert volume.spacing == pytest.approx((1, 2, 3))
    with pytest.raises(UserError, match="damaged OME-Zarr image"):
        read_volume(store(tmp_path / "b.zarr", multiscales=stated or 5))


def test_a_plain_array_that_states_other_axes_or_a_scaling_is_refused(tmp_path: Path) -> None:
    named = store(tmp_path / "named.zarr", _ARRAY_DIMENSIONS=["x", "y", "z"])
    with pytest.raises(UserError, match="has the axes x, y, z: expected them to end in z, y, x"):
        read_volume(named)
    read_volume(store(tmp_path / "right.zarr", _ARRAY_DIMENSIONS=["z", "y", "x"]))
    read_volume(store(tmp_path / "unnamed.zarr", _ARRAY_DIMENSIONS=["dim_0", "dim_1", "dim_2"]))
    scaled = store(tmp_path / "scaled.zarr", add_offset=-1024)
    with pytest.raises(UserError, match="states add_offset -1024: apply it, and save"):
        read_volume(scaled)


@pytest.mark.parametrize(
    ("factor", "offset"),
    [([1.0], [0.0]), (None, None), ("1", "0"), (1.0, 0), ([1.5, 0.7, 0.7], [0, 0, -100])],
)
def test_a_scaling_that_leaves_values_as_they_are(tmp_path: Path, factor: Any, offset: Any) -> None:
    volume = read_volume(store(tmp_path / "a.zarr", scale_factor=factor, add_offset=offset))
    assert not volume.spacing_known
    np.testing.assert_array_equal(volume.read_slice(3), VOXELS[3])


@pytest.mark.parametrize("factor", [2, [2.0], "2", "two", {"a": 1}, [1, 2], ["x"] * 100])
def test_a_scaling_that_is_not_applied_is_refused(tmp_path: Path, factor: Any) -> None:
    path = store(tmp_path / "a.zarr", scale_factor=factor)
    with pytest.raises(UserError, match=r"states scale_factor .{1,60}: apply it, and save"):
        read_volume(path)


def test_of_several_images_none_is_guessed(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", "0.4")
    group = zarr.open_group(str(path), mode="a")
    group.attrs["multiscales"] = 2 * list(group.attrs["multiscales"])
    with pytest.raises(UserError, match="holds 2 OME-Zarr images"):
        read_volume(path)


def test_the_layout_of_bioformats2raw_is_read(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.attrs["bioformats2raw.layout"] = 3
    ome(tmp_path / "a.zarr" / "0", "0.4")
    volume = read_volume(tmp_path / "a.zarr")
    assert volume.spacing == pytest.approx((0.005, 0.006, 0.007))


def test_of_several_series_of_bioformats2raw_none_is_guessed(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.attrs["bioformats2raw.layout"] = 3
    group.create_group("OME")
    for name in ("0", "1"):
        ome(tmp_path / "a.zarr" / name, "0.4")
    with pytest.raises(UserError, match=r"holds 2 OME-Zarr images: .*a\.zarr/NAME with NAME 0, 1"):
        read_volume(tmp_path / "a.zarr")
    assert read_volume(tmp_path / "a.zarr" / "1").size == (14, 12, 10)


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    large = VOXELS.astype(np.float64)
    large[3, 4, 5] = 1e300
    with pytest.raises(UserError, match="NaN or infinite voxels in slice 3"):
        read_volume(store(tmp_path / "a.zarr", large)).read_slice(3)
