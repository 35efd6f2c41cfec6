"""Volume: physical values, views that keep their place, cheap pickles, slice fingerprints."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from data.volumes.volume import Volume, parse_slices, rows_at_once
from util.errors import UserError

AFFINE = np.array(
    [[-0.7, 0.0, 0.1, 20.0], [0.0, -0.7, 0.0, 30.0], [0.1, 0.0, 2.5, -40.0], [0.0, 0.0, 0.0, 1.0]]
)


@pytest.fixture
def mapped(tmp_path: Path) -> Volume:
    """Int16 volume of 20 slices of 50 x 60 (120 kB), mapped at an odd offset of its file."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, (20, 50, 60)).astype(">i2")
    file = tmp_path / "scan 1.raw"
    file.write_bytes(b"header!" + voxels.tobytes())
    array = np.memmap(file, ">i2", "r", offset=7, shape=voxels.shape)
    return Volume(array, AFFINE, "folder/scan 1.nii.gz", slope=2.0, intercept=-5.0)


def _reads(volume: Volume, connection: object) -> None:
    connection.send((volume.read_slice(2), volume.size, volume.affine))  # type: ignore[attr-defined]


def _slice_in_spawned_process(
    volume: Volume,
) -> tuple[np.ndarray, tuple[int, int, int], np.ndarray]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_reads, args=(volume, theirs))
    process.start()
    received: tuple[np.ndarray, tuple[int, int, int], np.ndarray] = ours.recv()
    process.join()
    ours.close()
    theirs.close()
    return received


def test_size_spacing_name(mapped: Volume) -> None:
    assert mapped.size == (60, 50, 20)
    assert mapped.num_slices == 20
    assert mapped.name == "scan 1"
    assert mapped.spacing == pytest.approx((np.hypot(0.7, 0.1), 0.7, np.hypot(2.5, 0.1)))


def test_slices_and_patches_are_float32_in_physical_units(mapped: Volume) -> None:
    expected = np.asarray(mapped.array[3], np.float32) * 2 - 5
    assert mapped.read_slice(3).dtype == np.float32
    assert type(mapped.read_slice(3)) is np.ndarray
    np.testing.assert_array_equal(mapped.read_slice(3), expected)
    np.testing.assert_array_equal(mapped.read_slice(-17), expected)
    patch = mapped.read_patch(3, 7, 11, 5, 6)
    assert patch.dtype == np.float32
    np.testing.assert_array_equal(patch, expected[7:12, 11:17])


def test_reading_a_slice_leaves_the_file_and_the_map_alone(mapped: Volume) -> None:
    first = mapped.read_slice(0)
    first[:] = 0
    assert mapped.read_slice(0).any()


def test_scaling_is_rounded_once() -> None:
    stored = np.array([[[16777217, 3]]], np.int32)
    volume = Volume(stored, np.eye(4), "x", slope=0.1, intercept=0.7)
    expected = (stored[0].astype(np.float64) * 0.1 + 0.7).astype(np.float32)
    np.testing.assert_array_equal(volume.read_slice(0), expected)


@pytest.mark.parametrize("place", [(-1, 0, 2, 2), (49, 0, 2, 2), (0, 59, 2, 2), (0, -1, 2, 2)])
def test_patches_over_the_border_are_refused(
    mapped: Volume, place: tuple[int, int, int, int]
) -> None:
    with pytest.raises(IndexError, match="50 x 60"):
        mapped.read_patch(0, *place)


def test_selected_slices_share_voxels_and_keep_their_place(mapped: Volume) -> None:
    part = mapped.select_slices(4, 9)
    assert part.num_slices == 5
    assert np.shares_memory(part.array, mapped.array)
    np.testing.assert_array_equal(part.read_slice(1), mapped.read_slice(5))
    place, whole = (3.0, 7.0, 1.0, 1.0), (3.0, 7.0, 5.0, 1.0)
    np.testing.assert_allclose(part.affine @ place, mapped.affine @ whole)
    assert mapped.affine[2, 3] == -40.0
    with pytest.raises(IndexError):
        mapped.select_slices(5, 5)


@pytest.mark.parametrize("start", [0, 3])
def test_pickles_of_mapped_volumes_hold_no_voxels(mapped: Volume, start: int) -> None:
    volume = mapped.select_slices(start, 20)
    assert len(pickle.dumps(volume)) < 10_000
    values, size, affine = _slice_in_spawned_process(volume)
    np.testing.assert_array_equal(values, volume.read_slice(2))
    np.testing.assert_array_equal(affine, volume.affine)
    assert size == volume.size


def test_pickling_twice_and_odd_views_stay_mapped(mapped: Volume) -> None:
    view = Volume(mapped.array[2:18:3, ::-1, 5:40:2], AFFINE, "view")
    for _ in range(2):
        packed = pickle.dumps(view)
        assert len(packed) < 10_000
        again = pickle.loads(packed)
        np.testing.assert_array_equal(again.array, mapped.array[2:18:3, ::-1, 5:40:2])
        view = again.select_slices(0, again.num_slices)


def test_volumes_in_memory_are_pickled_whole() -> None:
    volume = Volume(np.arange(24.0).reshape(2, 3, 4), AFFINE, "x", 2.0, 1.0, spacing_known=False)
    again = pickle.loads(pickle.dumps(volume))
    np.testing.assert_array_equal(again.array, volume.array)
    assert (again.slope, again.intercept, again.spacing_known) == (2.0, 1.0, False)


def test_unpickling_without_the_file_names_it(mapped: Volume, tmp_path: Path) -> None:
    packed = pickle.dumps(mapped)
    (tmp_path / "scan 1.raw").unlink()
    with pytest.raises(UserError, match=r"scan 1\.raw can no longer be mapped"):
        pickle.loads(packed)


def test_digests_depend_on_physical_values_only() -> None:
    values = np.random.default_rng(1).integers(0, 4000, (3, 8, 9))
    stored = Volume(values.astype(np.uint16), np.eye(4), "a", intercept=-1024.0)
    plain = Volume((values - 1024).astype(">i2"), AFFINE, "b")
    floats = Volume((values - 1024).astype(np.float64), AFFINE, "c")
    assert stored.slice_digests() == plain.slice_digests() == floats.slice_digests()
    assert all(len(word) == 16 and int(word, 16) >= 0 for word in plain.slice_digests())
    assert len(set(plain.slice_digests())) == 3


def test_digests_see_values_and_shape_and_skip_constant_slices() -> None:
    values = np.arange(2 * 6 * 4, dtype=np.float32).reshape(2, 6, 4)
    values[1] = -1000
    digests = Volume(values, np.eye(4), "a").slice_digests()
    assert digests[1] == ""
    changed = values.copy()
    changed[0, 0, 0] = 0.5
    assert Volume(changed, np.eye(4), "a").slice_digests()[0] != digests[0]
    reshaped = values.reshape(2, 4, 6)
    assert Volume(reshaped, np.eye(4), "a").slice_digests()[0] != digests[0]


def test_digest_takes_both_zeros_for_one() -> None:
    values = np.array([[[0.0, 1.0]]], np.float32)
    minus = np.array([[[-0.0, 1.0]]], np.float32)
    one, other = (Volume(v, np.eye(4), "a").slice_digests() for v in (values, minus))
    assert one == other


def test_wrong_shapes_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="a volume has"):
        Volume(np.zeros((3, 3)), np.eye(4), "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2:5", (2, 5)),
        (":", (0, 10)),
        ("3:", (3, 10)),
        (":-4", (0, 6)),
        ("-3:", (7, 10)),
        ("0:99", (0, 10)),
        (" 1 : 2 ", (1, 2)),
    ],
)
def test_slice_ranges(text: str, expected: tuple[int, int]) -> None:
    assert parse_slices(text, 10) == expected


@pytest.mark.parametrize("text", ["5", "", "a:b", "1:2:3", "1.5:2", "::"])
def test_malformed_slice_ranges(text: str) -> None:
    with pytest.raises(UserError, match="START:STOP"):
        parse_slices(text, 10)


@pytest.mark.parametrize("text", ["5:5", "7:3", "10:", ":0", ":-10"])
def test_empty_slice_ranges(text: str) -> None:
    with pytest.raises(UserError, match="holds no slice of a volume of 10"):
        parse_slices(text, 10)


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_a_turned_volume_has_the_same_voxels_at_the_same_places(axis: str, tmp_path: Path) -> None:
    path = tmp_path / "voxels"
    np.arange(4 * 5 * 6, dtype=np.int16).tofile(path)
    array = np.memmap(path, np.int16, "r", shape=(4, 5, 6))
    affine = np.array([[0.5, 0, 0, 3], [0, -0.6, 0, 4], [0, 0, 0.7, 5], [0, 0, 0, 1.0]])
    volume = Volume(array, affine, "a.nii", slope=2.0, intercept=-3.0)
    turned = pickle.loads(pickle.dumps(volume.turned(axis)))
    assert sorted(turned.size) == sorted(volume.size)
    for z, y, x in np.ndindex(turned.array.shape):
        place = turned.affine @ (x, y, z, 1)
        i, j, k, _ = np.rint(np.linalg.solve(affine, place)).astype(int)
        assert turned.array[z, y, x] == array[k, j, i]
    across = {"z": 0, "y": 1, "x": 2}[axis]
    np.testing.assert_array_equal(turned.read_slice(1), 2.0 * array.take(1, across) - 3.0)


def test_rows_are_read_in_bands_where_each_lies_far_from_the_next(tmp_path: Path) -> None:
    """Rows of a slice across y are a whole slice apart in the file."""
    path = tmp_path / "voxels"
    shape = (40, 1500, 1024)
    with path.open("wb") as stream:
        stream.truncate(2 * int(np.prod(shape)))
    array = np.memmap(path, np.int16, "r+", shape=shape)
    array[:, 7, :5] = np.arange(200).reshape(40, 5)
    array.flush()
    volume = Volume(np.memmap(path, np.int16, "r", shape=shape), np.eye(4), "large.nii")
    assert rows_at_once(volume.array[3]) == 1500
    turned = volume.turned("y")
    assert rows_at_once(turned.array[7]) == 32
    np.testing.assert_array_equal(turned.read_slice(7), array[:, 7])
    np.testing.assert_array_equal(turned.read_patch(7, 1, 0, 39, 5), array[1:, 7, :5])


def test_the_whole_volume_is_known_across_any_axis() -> None:
    volume = Volume(np.arange(4 * 5 * 6).reshape(4, 5, 6), np.eye(4), "a.nii")
    part = volume.select_slices(1, 3)
    assert part.turned("z") is part
    turned = part.turned("y")
    assert turned.whole is not None
    assert turned.whole.size == (6, 4, 5)
    assert volume.turned("x").whole is None


def test_a_pickled_part_knows_its_whole(mapped: Volume) -> None:
    part = pickle.loads(pickle.dumps(mapped.select_slices(1, 3)))
    assert part.whole is not None
    np.testing.assert_array_equal(part.whole.array, mapped.array)
