"""PartialFile: header, slices and end, resumed where its journal and its bytes agree."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from data.writing.packing import GzipPacking, Packing, PlainPacking
from data.writing.partial_file import PartialFile, forget_journal, partial_files

KEY = {"weights": "1a2b"}
HEADER = b"header"
SLICES = [b"first slice", b"second", b"third slice"]


@pytest.fixture(params=[PlainPacking, GzipPacking])
def packing(request: pytest.FixtureRequest) -> Packing:
    made: Packing = request.param()
    return made


def begun(path: Path, packing: Packing, slices: list[bytes]) -> None:
    file = PartialFile(path, packing, KEY)
    file.open(HEADER)
    write(file, packing, slices)
    file.abandon()


def write(file: PartialFile, packing: Packing, slices: list[bytes]) -> None:
    for raw in slices:
        file.write(packing.pack(memoryview(raw)))


def end(file: PartialFile) -> None:
    file.seal()
    file.finish()


def whole(packing: Packing, path: Path) -> bytes:
    """Bytes of a file written without a break."""
    file = PartialFile(path, packing, None)
    file.open(HEADER)
    write(file, packing, SLICES)
    end(file)
    content = path.read_bytes()
    path.unlink()
    return content


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_content(tmp_path: Path, packing: Packing) -> None:
    content = whole(packing, tmp_path / "a")
    raw = gzip.decompress(content) if isinstance(packing, GzipPacking) else content
    assert raw == HEADER + b"".join(SLICES)
    assert names(tmp_path) == []


@pytest.mark.parametrize("kept", range(4))
def test_taken_up(tmp_path: Path, packing: Packing, kept: int) -> None:
    path = tmp_path / "a"
    begun(path, packing, SLICES[:kept])
    assert names(tmp_path) == ["a.partial", "a.partial.journal"]
    file = PartialFile(path, packing, KEY)
    file.open(HEADER, resume=True)
    assert file.slices == kept
    write(file, packing, SLICES[kept:])
    end(file)
    assert names(tmp_path) == ["a", "a.partial.journal"]
    forget_journal(path)
    assert names(tmp_path) == ["a"]
    assert path.read_bytes() == whole(packing, path)


@pytest.mark.parametrize("kept", range(4))
@pytest.mark.parametrize("stopped", [False, True])
def test_rewound(tmp_path: Path, packing: Packing, kept: int, stopped: bool) -> None:
    path = tmp_path / "a"
    file = PartialFile(path, packing, KEY)
    file.open(HEADER)
    write(file, packing, SLICES)
    file.rewind(kept)
    assert file.slices == kept
    if stopped:
        file.abandon()
        file = PartialFile(path, packing, KEY)
        file.open(HEADER, resume=True)
        assert file.slices == kept
    write(file, packing, SLICES[kept:])
    end(file)
    assert path.read_bytes() == whole(packing, path)


@pytest.mark.parametrize("named", [False, True])
def test_a_sealed_file_is_taken_up_whole(tmp_path: Path, packing: Packing, named: bool) -> None:
    """The run was cut off after this file's end, before or after it got its name."""
    path = tmp_path / "a"
    file = PartialFile(path, packing, KEY)
    file.open(HEADER)
    write(file, packing, SLICES)
    file.seal()
    assert names(tmp_path) == ["a.partial", "a.partial.journal"]
    if named:
        file.finish()
    file.abandon()
    file = PartialFile(path, packing, KEY)
    file.open(HEADER, resume=True)
    assert file.slices == len(SLICES)
    end(file)
    assert path.read_bytes() == whole(packing, path)


@pytest.mark.parametrize("alike", [False, True])
def test_a_finished_file_of_others_bytes_stays(
    tmp_path: Path, packing: Packing, alike: bool
) -> None:
    path = tmp_path / "a"
    begun(path, packing, SLICES)
    content = (tmp_path / "a.partial").read_bytes()
    (tmp_path / "a.partial").unlink()
    older = content[:-1] + b"?" if alike else b"an older result"  # alike up to its last slice
    path.write_bytes(older)
    file = PartialFile(path, packing, KEY)
    file.open(HEADER, resume=True)
    assert file.slices == 0
    assert path.read_bytes() == older
    file.abandon()


def test_another_header_starts_anew(tmp_path: Path, packing: Packing) -> None:
    begun(tmp_path / "a", packing, SLICES)
    file = PartialFile(tmp_path / "a", packing, KEY)
    file.open(b"Header", resume=True)
    assert file.slices == 0
    file.abandon()


@pytest.mark.parametrize("key", [KEY, None])
def test_not_resumed_starts_anew(
    tmp_path: Path, packing: Packing, key: dict[str, str] | None
) -> None:
    path = tmp_path / "a"
    begun(path, packing, SLICES[::-1])
    file = PartialFile(path, packing, key)
    file.open(HEADER)
    assert file.slices == 0
    assert names(tmp_path) == ["a.partial", "a.partial.journal"][: 2 if key else 1]
    write(file, packing, SLICES)
    end(file)
    assert names(tmp_path) == ["a", "a.partial.journal"][: 2 if key else 1]
    assert path.read_bytes() == whole(packing, path)


def test_not_open(tmp_path: Path) -> None:
    file = PartialFile(tmp_path / "a", PlainPacking(), None)
    with pytest.raises(ValueError, match="is not open"):
        file.seal()
    with pytest.raises(ValueError, match="is not open"):
        file.finish()
    file.abandon()


def test_names_of_what_an_unfinished_run_leaves(tmp_path: Path, packing: Packing) -> None:
    begun(tmp_path / "a.nii.gz", packing, [])
    assert [file.name for file in partial_files(tmp_path / "a.nii.gz")] == names(tmp_path)
    forget_journal(tmp_path / "a.nii.gz")
    assert names(tmp_path) == ["a.nii.gz.partial"]
