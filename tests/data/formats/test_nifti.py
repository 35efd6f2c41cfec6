"""NIfTI: mapped in place or unpacked once, every oddity refused by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cache_helpers import cache_files

from data.formats.readers import read_volume
from data.volumes.mapping import mapped_region
from data.volumes.volume import Volume
from util.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

AFFINE = np.array(
    [[-0.7, 0.0, 0.1, 20.0], [0.0, -0.7, 0.0, 30.0], [0.1, 0.0, 2.5, -40.0], [0.0, 0.0, 0.0, 1.0]]
)
VOXELS = np.random.default_rng(0).integers(-1000, 3000, (6, 5, 4)).astype(np.int16)  # z, y, x


def save(
    path: Path,
    voxels: np.ndarray = VOXELS,
    affine: np.ndarray = AFFINE,
    kind: type = nib.Nifti1Image,
    **header: object,
) -> Path:
    """Save voxels (..., z, y, x) with nibabel; header fields are set as given."""
    image = kind(voxels.T, affine)
    for name, value in header.items():
        image.header[name] = value
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)
    return path


def patch_header(path: Path, **fields: object) -> Path:
    """Change header fields behind nibabel's back."""
    raw = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(raw)
    return path


def mapped_path(volume: Volume) -> Path:
    region = mapped_region(volume.array)
    assert region is not None
    return Path(region.path)


@pytest.mark.parametrize("name", ["a b.nii", "a b.nii.gz", "A B.NII"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_and_geometry(tmp_path: Path, name: str, kind: type) -> None:
    path = save(tmp_path / "with blank" / "a b.nii", kind=kind)
    if name.endswith(".gz"):
        path = save(tmp_path / "with blank" / name, kind=kind)
    elif name != path.name:
        path = path.rename(path.with_name(name))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert volume.array.dtype == np.int16
    assert volume.source == str(path)
    assert volume.name.lower() == "a b"
    assert volume.spacing_known
    in_place = mapped_path(volume) == path.resolve()
    assert in_place == (not name.endswith(".gz"))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_big_endian(tmp_path: Path, ending: str) -> None:
    image = nib.Nifti1Image(VOXELS.T, AFFINE, nib.Nifti1Header(endianness=">"))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / f"big{ending}")
    volume = read_volume(tmp_path / f"big{ending}")
    assert volume.array.dtype == np.dtype(">i2")
    np.testing.assert_array_equal(volume.read_slice(2), VOXELS[2].astype(np.float32))


def test_packed_file_is_unpacked_once_and_named_by_content(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz")
    first = mapped_path(read_volume(path))
    before = first.stat().st_ino
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes(path.read_bytes())
    second = mapped_path(read_volume(copy))
    assert first == second
    assert second.stat().st_ino == before
    assert cache_files() == [first]


def test_several_gzip_members(tmp_path: Path) -> None:
    raw = save(tmp_path / "a.nii").read_bytes()
    path = tmp_path / "members.nii.gz"
    path.write_bytes(
        gzip.compress(raw[:100]) + gzip.compress(raw[100:400]) + gzip.compress(raw[400:])
    )
    np.testing.assert_array_equal(read_volume(path).array, VOXELS)


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [(2.0, -5.0, (2.0, -5.0)), (0.0, 7.0, (1.0, 0.0)), (np.nan, 7.0, (1.0, 0.0))],
)
def test_scaling_is_carried_lazily(
    tmp_path: Path, slope: float, intercept: float, expected: tuple[float, float]
) -> None:
    path = patch_header(save(tmp_path / "a.nii"), scl_slope=slope, scl_inter=intercept)
    volume = read_volume(path)
    assert (volume.slope, volume.intercept) == expected
    assert volume.array.dtype == np.int16
    scaled = VOXELS[1] * np.float32(expected[0]) + np.float32(expected[1])
    np.testing.assert_array_equal(volume.read_slice(1), scaled)


def test_nan_intercept_is_refused(tmp_path: Path) -> None:
    path = patch_header(save(tmp_path / "a.nii"), scl_slope=1.0, scl_inter=np.nan)
    with pytest.raises(UserError, match=r"a\.nii states scl_inter nan"):
        read_volume(path)


def test_qform_alone_and_micrometres(tmp_path: Path) -> None:
    affine = np.diag([-20.0, -20.0, 40.0, 1.0])
    path = save(tmp_path / "a.nii", affine=affine)
    patch_header(path, sform_code=0, qform_code=1, xyzt_units=3)
    expected = np.diag([-0.02, -0.02, 0.04, 1.0])
    np.testing.assert_allclose(read_volume(path).affine, expected, atol=1e-8)


def test_trailing_dimension_and_two_dimensions(tmp_path: Path) -> None:
    four = read_volume(save(tmp_path / "four.nii", VOXELS[None]))
    np.testing.assert_array_equal(four.array, VOXELS)
    two = read_volume(save(tmp_path / "two.nii.gz", VOXELS[0]))
    assert two.size == (4, 5, 1)
    np.testing.assert_array_equal(two.array[0], VOXELS[0])


def test_single_slice_without_thickness_gets_one_millimetre(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    path = save(tmp_path / "a.nii", VOXELS[:1], affine)
    row_z = {"srow_x": (-0.7, 0, 0, 20), "srow_y": (0, -0.7, 0, 30), "srow_z": (0, 0, 0, -40)}
    volume = read_volume(patch_header(path, sform_code=1, **row_z))
    assert volume.spacing == pytest.approx((0.7, 0.7, 1.0))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (np.zeros((3, 6, 5, 4), np.int16), "several time points"),
        (np.zeros((3, 1, 6, 5, 4), np.int16), "several time points or components"),
        (np.zeros((6, 5, 4), np.complex64), "complex64"),
        (np.zeros((6, 5, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "RGB"),
    ],
)
def test_not_one_grey_volume(tmp_path: Path, ending: str, voxels: np.ndarray, message: str) -> None:
    path = save(tmp_path / f"odd{ending}", voxels)
    with pytest.raises(UserError, match=rf"odd{ending}.*{message}"):
        read_volume(path)
    assert cache_files() == []


def test_zero_voxels(tmp_path: Path) -> None:
    path = patch_header(save(tmp_path / "a.nii"), dim=(3, 4, 5, 0, 1, 1, 1, 1))
    with pytest.raises(UserError, match=r"a\.nii is empty, its size is 4 x 5 x 0"):
        read_volume(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinite_voxels(tmp_path: Path, bad: float, ending: str, dtype: type) -> None:
    voxels: np.ndarray = VOXELS.astype(dtype)
    voxels[3, 1, 2] = bad
    path = save(tmp_path / f"a{ending}", voxels)
    with pytest.raises(UserError, match=rf"a{ending} holds 1 NaN or infinite voxels in slice 3"):
        read_volume(path)
    assert cache_files() == []


def test_clean_floats_are_read(tmp_path: Path) -> None:
    values = VOXELS.astype(np.float32) + np.float32(0.25)
    np.testing.assert_array_equal(read_volume(save(tmp_path / "a.nii.gz", values)).array, values)


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    voxels = VOXELS.astype(np.float64)
    voxels[0, 0, 0] = 1e300
    with pytest.raises(UserError, match="infinite"):
        read_volume(save(tmp_path / "a.nii", voxels))


@pytest.mark.parametrize("kept", [10, 200, 351, 400, 591])
def test_truncated_file(tmp_path: Path, kept: int) -> None:
    path = save(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a\.nii (is truncated|is not a NIfTI)"):
        read_volume(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_truncated_stream(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(-999, 999, (20, 200, 200)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", noise)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(UserError, match=r"a\.nii\.gz is truncated"):
        read_volume(path)
    assert cache_files() == []


def test_whole_stream_shorter_than_its_header_promises(tmp_path: Path) -> None:
    raw = save(tmp_path / "whole.nii").read_bytes()
    path = tmp_path / "short.nii.gz"
    path.write_bytes(gzip.compress(raw[:-2]))
    with pytest.raises(UserError, match=r"short\.nii\.gz is truncated: it unpacks to 590 bytes"):
        read_volume(path)
    assert cache_files() == []


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip at all", gzip.compress(b"no NIfTI" * 100, mtime=0)],
    ids=["empty", "no gzip", "no NIfTI"],
)
def test_not_nifti_inside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.nii\.gz (cannot be unpacked|is not a NIfTI)"):
        read_volume(path)
    assert cache_files() == []


def test_damaged_stream(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz")
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF  # the checksum
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.nii\.gz cannot be unpacked"):
        read_volume(path)
    assert cache_files() == []


def test_gzip_under_the_wrong_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz").rename(tmp_path / "b.nii")
    with pytest.raises(UserError, match=r"b\.nii is packed with gzip: rename it"):
        read_volume(path)


def test_singular_affine(tmp_path: Path) -> None:
    path = patch_header(save(tmp_path / "a.nii"), srow_x=(0, 0, 0, 0))
    with pytest.raises(UserError, match=r"a\.nii states an unusable geometry"):
        read_volume(path)


def test_unknown_voxel_type(tmp_path: Path) -> None:
    path = patch_header(save(tmp_path / "a.nii"), datatype=1234)
    with pytest.raises(UserError, match=r"a\.nii has a broken NIfTI header"):
        read_volume(path)


@pytest.mark.shared
def test_real_volume_equals_nibabel(shared_data: Path) -> None:
    path = shared_data / "clinical" / "LIDC-IDRI-0001_lungbox.nii.gz"
    volume = read_volume(path)
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    assert volume.size == image.shape == (377, 288, 121)
    np.testing.assert_allclose(volume.affine, image.affine)
    for index in (0, 60, 120):
        expected = np.asarray(image.dataobj[:, :, index]).T
        np.testing.assert_array_equal(volume.read_slice(index), expected)


def test_a_unit_that_stands_for_none_is_millimetres(tmp_path: Path) -> None:
    path = patch_header(save(tmp_path / "a.nii"), xyzt_units=7)
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-6)


def test_a_file_without_either_form_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = patch_header(save(tmp_path / "a.nii"), sform_code=0, qform_code=0)
    for _ in range(2):
        np.testing.assert_allclose(read_volume(path).affine, nib.load(path).affine)  # type: ignore[attr-defined]
    assert capsys.readouterr().err.count("a.nii states neither sform nor qform") == 1


def test_a_damaged_file_of_the_cache_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz")
    read_volume(path)
    (cached,) = cache_files()
    cached.write_bytes(cached.read_bytes()[:-10])
    with pytest.raises(UserError, match=rf"cached file {cached} is damaged .*: delete it"):
        read_volume(path)
