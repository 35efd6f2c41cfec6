"""NRRD and MetaImage: ITK's geometry, voxels mapped in place or unpacked in constant memory."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from cache_helpers import cache_files, in_cache

from data.formats.readers import read_volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

VOXELS = np.random.default_rng(0).integers(-1000, 3000, (6, 5, 4)).astype(np.int16)
DIRECTION = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")


def make_image(voxels: np.ndarray = VOXELS) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.5, 0.6, 2.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(DIRECTION)
    return image


def save(path: Path, image: sitk.Image | None = None, packed: bool = False) -> Path:
    sitk.WriteImage(make_image() if image is None else image, str(path), packed)
    return path


def expected_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(DIRECTION, (3, 3)) * [0.5, 0.6, 2.0]
    affine[:3, 3] = (10.0, -20.0, 30.0)
    affine[:2] *= -1  # LPS to RAS
    return affine


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_voxels_and_geometry(tmp_path: Path, ending: str, packed: bool) -> None:
    volume = read_volume(save(tmp_path / f"a b{ending}", packed=packed))
    np.testing.assert_array_equal(volume.array, VOXELS)
    np.testing.assert_allclose(volume.affine, expected_affine(), atol=1e-12)
    assert volume.name == "a b"
    assert volume.spacing_known
    assert in_cache(volume) == packed


@pytest.mark.parametrize("ending", ENDINGS)
def test_same_place_as_the_nifti_that_itk_writes(tmp_path: Path, ending: str) -> None:
    nifti = read_volume(save(tmp_path / "n.nii.gz"))
    volume = read_volume(save(tmp_path / f"a{ending}"))
    np.testing.assert_allclose(volume.affine, nifti.affine, atol=1e-5)
    assert volume.slice_digests() == nifti.slice_digests()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_voxel_types(tmp_path: Path, dtype: str, ending: str) -> None:
    voxels = np.abs(VOXELS % 100).astype(dtype)
    volume = read_volume(save(tmp_path / f"a{ending}", make_image(voxels)))
    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array, voxels)


def nrrd(path: Path, data: bytes, *lines: str, sizes: str = "4 3 2", kind: str = "short") -> Path:
    header = ["NRRD0004", f"type: {kind}", f"dimension: {len(sizes.split())}", f"sizes: {sizes}"]
    path.write_bytes("\n".join([*header, *lines, "", ""]).encode() + data)
    return path


SMALL = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
SPACE = ("space: left-posterior-superior", "space directions: (1,0,0) (0,1,0) (0,0,3)")


def test_nrrd_big_endian_and_right_anterior_superior(tmp_path: Path) -> None:
    path = nrrd(
        tmp_path / "a.nrrd",
        SMALL.astype(">i2").tobytes(),
        "endian: big",
        "encoding: raw",
        "space: right-anterior-superior",
        "space directions: (0.5,0,0) (0,0.6,0) (0,0,2)",
        "space origin: (1,2,3)",
    )
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, SMALL)
    expected = np.diag([0.5, 0.6, 2.0, 1.0])
    expected[:3, 3] = (1, 2, 3)
    np.testing.assert_allclose(volume.affine, expected)


@pytest.mark.parametrize("skip", [5, -1])
def test_nrrd_byte_skip(tmp_path: Path, skip: int) -> None:
    lines = (*SPACE, "endian: little", "encoding: raw", f"byte skip: {skip}")
    path = nrrd(tmp_path / "a.nrrd", b"12345" + SMALL.tobytes(), *lines)
    np.testing.assert_array_equal(read_volume(path).array, SMALL)


def test_nrrd_in_micrometres_and_without_spacing(tmp_path: Path) -> None:
    lines = (*SPACE, "endian: little", "encoding: raw", 'space units: "um" "um" "um"')
    path = nrrd(tmp_path / "a.nrrd", SMALL.tobytes(), *lines)
    assert read_volume(path).spacing == pytest.approx((1e-3, 1e-3, 3e-3))
    path = nrrd(tmp_path / "b.nrrd", SMALL.tobytes(), "endian: little", "encoding: raw")
    volume = read_volume(path)
    assert volume.spacing == (1.0, 1.0, 1.0)
    assert not volume.spacing_known


@pytest.mark.parametrize("encoding", ["ascii", "hex", "bzip2"])
def test_nrrd_encodings_that_are_refused(tmp_path: Path, encoding: str) -> None:
    lines = (*SPACE, "endian: little", f"encoding: {encoding}")
    path = nrrd(tmp_path / "a.nrrd", b"1 2 3", *lines)
    with pytest.raises(UserError, match=r"a\.nrrd (has encoding|cannot be read)"):
        read_volume(path)


def test_nrrd_gzip_in_a_detached_file(tmp_path: Path) -> None:
    (tmp_path / "d.raw.gz").write_bytes(gzip.compress(SMALL.tobytes()))
    lines = (*SPACE, "endian: little", "encoding: gzip", "data file: d.raw.gz")
    path = nrrd(tmp_path / "a.nhdr", b"", *lines)
    np.testing.assert_array_equal(read_volume(path).array, SMALL)
    (tmp_path / "d.raw.gz").write_bytes(gzip.compress((SMALL + 1).astype("<i2").tobytes()))
    np.testing.assert_array_equal(read_volume(path).array, SMALL + 1)


def meta(path: Path, data: bytes, **fields: str) -> Path:
    all_fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "DimSize": "4 3 2",
        "ElementType": "MET_SHORT",
        **fields,
        "ElementDataFile": fields.get("ElementDataFile", "LOCAL"),
    }
    all_fields["ElementDataFile"] = all_fields.pop("ElementDataFile")
    text = "".join(f"{name} = {value}\n" for name, value in all_fields.items())
    path.write_bytes(text.encode() + data)
    return path


def test_meta_big_endian_header_size_and_spacing(tmp_path: Path) -> None:
    (tmp_path / "v.raw").write_bytes(b"skipped" + SMALL.astype(">i2").tobytes())
    fields = {"BinaryData": "True", "BinaryDataByteOrderMSB": "True", "ElementDataFile": "v.raw"}
    path = meta(tmp_path / "a.mhd", b"", HeaderSize="7", ElementSpacing="1 2 3", **fields)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, SMALL)
    assert volume.spacing == (1.0, 2.0, 3.0)
    assert volume.spacing_known
    path = meta(tmp_path / "b.mhd", b"", HeaderSize="-1", **fields)
    np.testing.assert_array_equal(read_volume(path).array, SMALL)
    assert not read_volume(path).spacing_known


def test_highly_packed_zlib_stream(tmp_path: Path) -> None:
    """A thousandfold packing: one block read unpacks to many blocks written."""
    zeros = np.zeros((80, 200, 200), np.int16)
    zeros[79, 199, 199] = 7
    packed = zlib.compress(zeros.tobytes(), 9)
    fields = {"BinaryData": "True", "CompressedData": "True"}
    path = meta(tmp_path / "a.mha", packed, DimSize="200 200 80", **fields)
    np.testing.assert_array_equal(read_volume(path).array, zeros)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_truncated(tmp_path: Path, ending: str, packed: bool) -> None:
    path = save(tmp_path / f"a{ending}", packed=packed)
    path.write_bytes(path.read_bytes()[:-15])
    with pytest.raises(UserError, match=rf"a{ending} is truncated"):
        read_volume(path)
    assert cache_files() == []


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"nonsense", b"NRRD0004\ntype: short\n\n"])
def test_broken_header(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a{ending} cannot be read"):
        read_volume(path)


def test_missing_voxel_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(UserError, match=r'a\.mhd names "a\.raw".*put it beside the header'):
        read_volume(path)


def test_text_voxels_and_lists_of_files(tmp_path: Path) -> None:
    path = meta(tmp_path / "a.mha", b"1 2 3", BinaryData="False")
    with pytest.raises(UserError, match=r"a\.mha holds its voxels as text"):
        read_volume(path)
    path = meta(tmp_path / "b.mhd", b"s1.raw\n", BinaryData="True", ElementDataFile="LIST")
    with pytest.raises(UserError, match=r"b\.mhd spreads its voxels over several files"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_time_points_components_and_flat_images(tmp_path: Path, ending: str) -> None:
    image = make_image()
    path = save(tmp_path / f"t{ending}", sitk.JoinSeries([image, image]))
    with pytest.raises(UserError, match=rf"t{ending} has size 4 x 5 x 6 x 2, several time points"):
        read_volume(path)
    path = save(tmp_path / f"c{ending}", sitk.Compose([image, image, image]))
    with pytest.raises(UserError, match=rf"c{ending} has 3 components"):
        read_volume(path)
    path = save(tmp_path / f"z{ending}", make_image(VOXELS.astype(np.complex64)))
    with pytest.raises(UserError, match=rf"z{ending} (has complex64 voxels|has 2 components)"):
        read_volume(path)
    one = read_volume(save(tmp_path / f"o{ending}", sitk.JoinSeries([image])))
    np.testing.assert_array_equal(one.array, VOXELS)
    np.testing.assert_allclose(one.affine, expected_affine(), atol=1e-12)
    flat = read_volume(save(tmp_path / f"f{ending}", image[:, :, 0]))
    np.testing.assert_array_equal(flat.array, VOXELS[:1])
    assert flat.spacing == pytest.approx((0.5, 0.6, 1.0))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_nan_voxels(tmp_path: Path, ending: str, packed: bool) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[4, 0, 0] = np.nan
    path = save(tmp_path / f"a{ending}", make_image(voxels), packed)
    with pytest.raises(UserError, match=rf"a{ending} holds 1 NaN or infinite voxels in slice 4"):
        read_volume(path)
    assert cache_files() == []


def test_digests_do_not_depend_on_the_format(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOXELS.T, np.eye(4)), tmp_path / "a.nii.gz")
    nifti = read_volume(tmp_path / "a.nii.gz").slice_digests()
    assert nifti == read_volume(save(tmp_path / "a.nrrd", packed=True)).slice_digests()
    shifted = VOXELS + np.int16(1)
    assert not set(nifti) & set(
        read_volume(save(tmp_path / "b.nrrd", make_image(shifted))).slice_digests()
    )


def test_a_list_axis_of_one_is_no_vector(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 500, (4, 6, 5)).astype("<i2")
    head = (
        "NRRD0004\ntype: short\ndimension: 4\nspace: left-posterior-superior\nsizes: 1 5 6 4\n"
        "space directions: none (0.7,0,0) (0,0.7,0) (0,0,1.5)\nkinds: list domain domain domain\n"
        "endian: little\nencoding: raw\nspace origin: (-20,-30,-100)\n\n"
    )
    path = tmp_path / "a.nrrd"
    path.write_bytes(head.encode() + voxels.tobytes())
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).squeeze(), voxels)
    assert volume.spacing == pytest.approx(image.GetSpacing())
    path.write_bytes(head.replace("sizes: 1", "sizes: 2").encode() + voxels.tobytes() * 2)
    with pytest.raises(UserError, match=r"a\.nrrd has 2 components per voxel"):
        read_volume(path)


@pytest.mark.parametrize("name", ["listing.raw", "dose_50%.raw", "List of 3.raw"])
def test_odd_names_of_detached_voxels(tmp_path: Path, name: str) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 500, (4, 6, 5)).astype("<i2")
    (tmp_path / name).write_bytes(voxels.tobytes())
    (tmp_path / "a.nhdr").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 4\nspacings: 1 1 2\nendian: little\n"
        f"encoding: raw\ndata file: {name}\n"
    )
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nhdr").array, voxels)


@pytest.mark.parametrize("name", ["LIST", "LIST 2D", "rec_%03d.raw 1 4 1"])
def test_voxels_in_several_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.nhdr").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 4\nspacings: 1 1 2\nendian: little\n"
        f"encoding: raw\ndata file: {name}\nrec_001.raw\n"
    )
    with pytest.raises(UserError, match=r"a\.nhdr spreads its voxels over several files"):
        read_volume(tmp_path / "a.nhdr")


def test_a_scaling_that_most_programs_leave_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(path))
    text = path.read_text()
    for line in ("ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionOffset = -1024"):
        path.write_text(text.replace("ElementType", f"{line}\nElementType"))
        with pytest.raises(UserError, match=r"a\.mhd states ElementToIntensityFunction slope"):
            read_volume(path)
    path.write_text(text.replace("ElementType", "ElementToIntensityFunctionSlope = 1\nElementType"))
    assert read_volume(path).num_slices == 2


def test_the_header_of_the_docs_makes_raw_voxels_a_volume(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    header = text[text.index("ObjectType = Image") : text.index("```\n\n`DimSize` is x y z")]
    voxels = np.random.default_rng(0).integers(0, 60000, (20, 32, 40)).astype("<u2")
    (tmp_path / "lung.mhd").write_text(header)
    (tmp_path / "lung.vol").write_bytes(voxels.tobytes())
    volume = read_volume(tmp_path / "lung.mhd")
    np.testing.assert_array_equal(volume.array, voxels)
    assert volume.spacing == pytest.approx((0.02, 0.02, 0.02))
    (tmp_path / "lung.mhd").write_text(header.replace("HeaderSize = 0", "HeaderSize = -1"))
    (tmp_path / "lung.vol").write_bytes(b"a header of some bytes" + voxels.tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "lung.mhd").array, voxels)


@pytest.mark.parametrize("word", ["T", "1", "true", "TRUE"])
def test_yes_and_no_as_metaio_has_them(tmp_path: Path, word: str) -> None:
    voxels = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    head = "NDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
    path = tmp_path / "a.mha"
    order = f"BinaryData = {word}\nBinaryDataByteOrderMSB = {word}\nElementDataFile = LOCAL\n"
    path.write_bytes((head + order).encode() + voxels.tobytes())
    np.testing.assert_array_equal(read_volume(path).array, voxels)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), voxels)
    packed = f"CompressedData = {word}\nElementDataFile = LOCAL\n"
    path.write_bytes((head + packed).encode() + zlib.compress(voxels.astype("<i2").tobytes()))
    np.testing.assert_array_equal(read_volume(path).array, voxels)
    path.write_bytes((head + "BinaryData = F\nElementDataFile = LOCAL\n").encode() + b"1 2 3")
    with pytest.raises(UserError, match="holds its voxels as text"):
        read_volume(path)
    path.write_bytes((head + "BinaryData = maybe\nElementDataFile = LOCAL\n").encode())
    with pytest.raises(UserError, match='states "maybe", expected True or False'):
        read_volume(path)


@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_packed_bytes_promised_against_those_there(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a{ending}", packed=True)
    words = re.search(rb"CompressedDataSize = ([0-9]+)", path.read_bytes())
    assert words is not None
    more = str(int(words[1]) + 7).encode()
    path.write_bytes(path.read_bytes().replace(words[1], more))
    with pytest.raises(UserError, match=rf"it holds {int(words[1])} packed bytes, its head"):
        read_volume(path)


@pytest.mark.parametrize("field", ["space units", "units"])
def test_nrrd_states_its_unit_in_two_ways(tmp_path: Path, field: str) -> None:
    place = SPACE if field == "space units" else ("spacings: 1 1 3",)
    lines = ("endian: little", "encoding: raw", *place, f'{field}: "um" "um" "um"')
    volume = read_volume(nrrd(tmp_path / "a.nrrd", SMALL.tobytes(), *lines))
    assert volume.spacing == pytest.approx((1e-3, 1e-3, 3e-3))


def test_nrrd_in_several_units_is_refused(tmp_path: Path) -> None:
    lines = ("endian: little", "encoding: raw", *SPACE, 'space units: "mm" "mm" "um"')
    with pytest.raises(UserError, match="expected one unit of length for all axes"):
        read_volume(nrrd(tmp_path / "a.nrrd", SMALL.tobytes(), *lines))


@pytest.mark.parametrize(
    "units",
    ['"pixel" "pixel" "pixel"', '"none" "none" "none"', '"???" "???" "???"', '"mm" "mm" "s"'],
)
@pytest.mark.parametrize("field", ["space units", "units"])
def test_nrrd_in_no_unit_of_length_states_no_voxel_size(
    tmp_path: Path, field: str, units: str
) -> None:
    place = SPACE if field == "space units" else ("spacings: 1 1 3",)
    lines = ("endian: little", "encoding: raw", *place, f"{field}: {units}")
    volume = read_volume(nrrd(tmp_path / "a.nrrd", SMALL.tobytes(), *lines))
    assert not volume.spacing_known
    assert volume.spacing == pytest.approx((1.0, 1.0, 3.0))
    np.testing.assert_array_equal(volume.array, SMALL)


def test_nrrd_without_the_size_of_an_axis_states_no_voxel_size(tmp_path: Path) -> None:
    lines = ("endian: little", "encoding: raw", "spacings: 1 1 nan")
    assert not read_volume(nrrd(tmp_path / "a.nrrd", SMALL.tobytes(), *lines)).spacing_known


def test_bytes_before_the_voxels_are_skipped_as_itk_skips_them(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", b"12345" + SMALL.tobytes(), "endian: little",
                "encoding: raw", "byte skip: 5", *SPACE)  # fmt: skip
    text = (
        "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
        "HeaderSize = 200\nElementDataFile = LOCAL\n"
    )
    local = tmp_path / "local.mha"
    local.write_bytes(text.encode().ljust(200, b" ") + SMALL.tobytes())
    detached = tmp_path / "detached.mhd"
    detached.write_text(text.replace("LOCAL", "voxels.raw"))
    (tmp_path / "voxels.raw").write_bytes(bytes(200) + SMALL.tobytes())
    for one in (path, local, detached):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(one))), SMALL)
        np.testing.assert_array_equal(read_volume(one).array, SMALL)


def test_far_more_bytes_than_promised_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.mhd")
    raw = tmp_path / "a.raw"
    raw.write_bytes(raw.read_bytes() + bytes(100))
    read_volume(path)
    assert capsys.readouterr().err == ""
    raw.write_bytes(raw.read_bytes() + bytes(10_000))
    read_volume(path)
    assert "a.raw holds 10100 bytes more than the header of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("NDims", "1e308", "has a broken header"),
        ("NDims", "99999", "states 99999 axes and 3 sizes"),
        ("DimSize", "5 6", "states 3 axes and 2 sizes"),
    ],
)
def test_a_number_of_axes_that_cannot_be(tmp_path: Path, field: str, value: str, told: str) -> None:
    path = save(tmp_path / "a.mhd")
    path.write_text(re.sub(f"{field} = .*", f"{field} = {value}", path.read_text()))
    with pytest.raises(UserError, match=told):
        read_volume(path)
