"""NIfTI writer resumed: the bytes are those of an unbroken run."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from writer_helpers import (
    AFFINE,
    KEY,
    NAMES,
    SIZE,
    VOXELS,
    append_all,
    journal_of,
    names,
    partial_of,
    stop_after,
    write,
    writer_for,
)

from data.formats.readers import read_volume
from data.writing.nifti_writer import NiftiSliceWriter
from util.errors import UserError

pytest_plugins = ["writer_fixtures"]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_bytes_depend_on_neither_threads_nor_journal(
    output: Path, unbroken: bytes, threads: int
) -> None:
    write(output, threads=threads)
    assert output.read_bytes() == unbroken
    assert names(output.parent) == [output.name, f"{output.name}.partial.journal"]


def test_readers_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    stop_after(path, 2)
    write(path, resume=True)
    packed = path.read_bytes()
    member = zlib.decompressobj(wbits=31)
    unpacked = member.decompress(packed)
    assert (member.eof, member.unused_data) == (True, b""), "one gzip member and nothing more"
    assert gzip.decompress(packed) == unpacked
    assert unpacked[352:] == VOXELS.tobytes()
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), VOXELS)
    np.testing.assert_array_equal(read_volume(path).array, VOXELS)


@pytest.mark.parametrize("slices", range(5))
@pytest.mark.parametrize("threads", [1, 3])
def test_taken_up_after_each_slice(
    output: Path, unbroken: bytes, slices: int, threads: int
) -> None:
    stop_after(output, slices, threads=threads)
    assert names(output.parent) == [f"{output.name}.partial", f"{output.name}.partial.journal"]
    assert write(output, resume=True) == slices
    assert output.read_bytes() == unbroken
    assert names(output.parent) == [output.name, f"{output.name}.partial.journal"]


def test_taken_up_again_and_again(output: Path, unbroken: bytes) -> None:
    for slices in range(5):
        stop_after(output, slices, resume=True)
    assert write(output, resume=True) == 4
    assert output.read_bytes() == unbroken


def test_stopped_before_its_end(output: Path, unbroken: bytes) -> None:
    """All slices are there, the end of the file is not."""
    stop_after(output, 5)
    assert write(output, resume=True) == 5
    assert output.read_bytes() == unbroken


@pytest.mark.parametrize("named", [False, True])
def test_sealed_files_are_taken_up_whole(output: Path, unbroken: bytes, named: bool) -> None:
    """Its run was cut off while it gave its files their names."""
    with writer_for(output) as writer:
        for values in VOXELS:
            writer.append(values)
        writer.seal()
        assert names(output.parent) == [f"{output.name}.partial", f"{output.name}.partial.journal"]
        assert partial_of(output).read_bytes() == unbroken
    if not named:
        output.rename(partial_of(output))
    assert write(output, resume=True, overwrite=True) == 5
    assert output.read_bytes() == unbroken


def test_a_file_with_missing_slices_is_not_sealed(output: Path) -> None:
    stop_after(output, 3)
    with (
        pytest.raises(ValueError, match="closed after 3 of 5 slices"),
        writer_for(output, resume=True) as writer,
    ):
        writer.seal()
    assert names(output.parent) == [f"{output.name}.partial", f"{output.name}.partial.journal"]
    with pytest.raises(ValueError, match="is not open"):
        writer.seal()


@pytest.mark.parametrize("key", [KEY, {"weights": "3c4d"}, None])
def test_without_resume_old_files_are_replaced(
    output: Path, unbroken: bytes, key: dict[str, Any] | None
) -> None:
    stop_after(output, 3)
    assert write(output, resume_key=key) == 0
    assert output.read_bytes() == unbroken
    assert (
        names(output.parent) == [output.name, f"{output.name}.partial.journal"][: 2 if key else 1]
    )


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"resume_key": KEY | {"weights": "3c4d"}}, 'run.weights was "1a2b", is now "3c4d"'),
        ({"resume_key": {"weights": "1a2b"}}, "run.options.scale was 8, is now missing"),
        ({"dtype": np.float32}, 'dtype was "<i2", is now "<f4"'),
    ],
)
def test_another_run(output: Path, options: dict[str, Any], difference: str) -> None:
    stop_after(output, 3)
    before = partial_of(output).read_bytes(), journal_of(output).read_bytes()
    with pytest.raises(UserError) as caught:
        write(output, resume=True, **options)
    message = str(caught.value)
    assert message.startswith(f"{partial_of(output)} cannot be resumed")
    assert difference in message
    assert message.endswith("run without --resume to start anew")
    assert "\n" not in message
    assert (partial_of(output).read_bytes(), journal_of(output).read_bytes()) == before


def test_another_size_and_place(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    stop_after(path, 3)
    other = NiftiSliceWriter(path, (70, 60, 6), np.eye(4), resume_key=KEY, resume=True)
    with pytest.raises(UserError, match=r"size was \[70, 60, 5\], is now \[70, 60, 6\]") as caught:
        other.__enter__()
    assert "affine was [[0.1, 0.0, 0.0, 0.0], " in str(caught.value)


def test_resume_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be resumed without a resume_key"):
        NiftiSliceWriter(tmp_path / "a.nii", SIZE, AFFINE, resume=True)


def test_no_threads(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    stop_after(path, 3)
    with pytest.raises(ValueError, match="0 threads"):
        write(path, threads=0)
    assert write(path, resume=True) == 3


def test_two_files_go_on_from_the_same_slice(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in NAMES]
    stop_after(paths[0], 4)
    stop_after(paths[1], 2)
    with writer_for(paths[0], resume=True) as ahead, writer_for(paths[1], resume=True) as behind:
        common = min(ahead.slices_written, behind.slices_written)
        for writer in (ahead, behind):
            writer.rewind(common)
            assert writer.slices_written == common == 2
            for values in VOXELS[common:]:
                writer.append(values)
    for path in paths:
        write(tmp_path / "unbroken" / path.name, resume_key=None)
        assert path.read_bytes() == (tmp_path / "unbroken" / path.name).read_bytes()


def test_rewind_among_waiting_slices(output: Path, unbroken: bytes) -> None:
    with writer_for(output) as writer:
        for values in VOXELS[[0, 1, 3, 3]]:
            writer.append(values)
        writer.rewind(2)
        for values in VOXELS[2:]:
            writer.append(values)
    assert output.read_bytes() == unbroken


def test_rewind_to_what_is_not_there(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "a.nii")
    with pytest.raises(ValueError, match="is not open"):
        writer.rewind(0)
    for slices in (1, -1):
        with pytest.raises(ValueError, match=f"holds 0 slices, not {slices}"), writer:
            writer.rewind(slices)
    without_key = writer_for(tmp_path / "b.nii", resume_key=None)
    with pytest.raises(ValueError, match="cannot be rewound without a resume_key"), without_key:
        without_key.rewind(0)


def test_nan_keeps_what_was_written(output: Path, unbroken: bytes) -> None:
    writer = writer_for(output)
    with pytest.raises(UserError, match=r"slice 1 for .* holds NaN or infinite values"):
        append_all(writer, [VOXELS[0], np.full((60, 70), np.nan, np.float32)])
    assert not output.exists()
    assert write(output, resume=True) == 1
    assert output.read_bytes() == unbroken


def test_values_may_change_once_they_are_appended(output: Path, unbroken: bytes) -> None:
    buffer = np.empty_like(VOXELS[0])
    with writer_for(output, resume_key=None) as writer:
        for values in VOXELS:
            buffer[:] = values
            writer.append(buffer)
            buffer[:] = -1
    assert output.read_bytes() == unbroken
