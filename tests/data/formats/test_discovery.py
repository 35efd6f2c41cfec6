"""From command-line words to volumes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dicom_helpers import chest, write_ct
from PIL import Image

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from util.disk.cache_folder import mark_own
from util.errors import UserError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def dicom_folder(folder: Path, *names: str) -> Path:
    for name in names:
        touch(folder / name)
        (folder / name).write_bytes(bytes(128) + b"DICM")
    return folder


def stack_folder(folder: Path, pages: int = 1) -> Path:
    folder.mkdir(parents=True)
    for index in range(3):
        pixels = np.zeros((pages, 8, 9), np.uint8)
        tifffile.imwrite(folder / f"s{index}.tif", pixels, photometric="minisblack")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two volumes and a mask, a DICOM series, a TIFF stack, multi-page TIFFs, deeper folders."""
    folder = tmp_path / "my data"
    touch(
        folder / "case 10.nii.gz",
        folder / "case 9.nii",
        folder / "case 9_mask.nii.gz",
        folder / "notes.txt",
        folder / ".hidden.nii",
        folder / "v.raw",
        folder / "v.mhd",
    )
    dicom_folder(folder / "dicom", "IM1", "IM2", "DICOMDIR")
    stack_folder(folder / "stack")
    stack_folder(folder / "many", pages=4)
    dicom_folder(folder / "patient" / "study" / "series", "1.dcm", "2.dcm")
    return folder


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


EVERYTHING = [
    "case 9.nii",
    "case 10.nii.gz",
    "v.mhd",
    "dicom",
    "many/s0.tif",
    "many/s1.tif",
    "many/s2.tif",
    "patient/study/series",
    "stack",
]


def test_a_folder_of_all_kinds(root: Path) -> None:
    assert names(find_volumes([str(root)]), root) == EVERYTHING


def test_named_files_and_folders_keep_their_order(root: Path) -> None:
    words = [str(root / "stack"), str(root / "case 10.nii.gz"), str(root / "dicom")]
    assert find_volumes(words) == [Path(word) for word in words]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("case *", ["case 9.nii", "case 10.nii.gz"]),
        ("*.nii*", ["case 9.nii", "case 10.nii.gz"]),
        ("[ds]*", ["dicom", "stack"]),
        ("**/s1.tif", ["many/s1.tif", "stack/s1.tif"]),
        ("*", EVERYTHING),
    ],
)
def test_patterns(root: Path, pattern: str, expected: list[str]) -> None:
    assert sorted(names(find_volumes([str(root / pattern)]), root)) == sorted(expected)


def test_relative_words_stay_relative(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert find_volumes(["case 9.nii", "dic*"]) == [Path("case 9.nii"), Path("dicom")]


def test_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    assert find_volumes(["~/case 9.nii"]) == [root / "case 9.nii"]


def test_existing_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    touch(tmp_path / "scan[1].nii", tmp_path / "scan1.nii")
    assert find_volumes([str(tmp_path / "scan[1].nii")]) == [tmp_path / "scan[1].nii"]


def test_a_cache_within_a_folder_of_volumes_is_none_of_them(tmp_path: Path) -> None:
    touch(tmp_path / "ct.nii")
    mark_own(tmp_path / "cache")
    touch(tmp_path / "cache" / f"{'0' * 40}.nii")
    for word in (tmp_path, tmp_path / "**" / "*.nii"):
        assert find_volumes([str(word)]) == [tmp_path / "ct.nii"]


def test_each_case_once(root: Path) -> None:
    words = [str(root / "case 9.nii"), str(root / "c*"), f"{root}/dicom/../case 9.nii"]
    assert names(find_volumes(words), root) == ["case 9.nii", "case 10.nii.gz"]
    link = root.parent / "link"
    link.symlink_to(root)
    assert names(find_volumes([str(root), str(link)]), root) == EVERYTHING


@pytest.mark.parametrize("word", ["", "**/*.nii", "a/**/*"])
def test_links_that_lead_back_up_come_to_an_end(tmp_path: Path, word: str) -> None:
    touch(tmp_path / "a" / "ct.nii", tmp_path / "a" / "deeper" / "other.nii")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "latest").symlink_to(".")
    (tmp_path / "a" / "itself").symlink_to("itself")
    (tmp_path / "a" / "deeper" / "again").symlink_to(tmp_path)
    expected = ["a/ct.nii", "a/deeper/other.nii"]
    assert sorted(names(find_volumes([str(tmp_path / word)]), tmp_path)) == expected


def test_a_linked_folder_counts(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "ct.nii")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data").symlink_to(tmp_path / "store")
    assert names(find_volumes([str(tmp_path / "mine")]), tmp_path) == ["mine/data/ct.nii"]
    assert names(find_volumes([f"{tmp_path}/mine/**/*.nii"]), tmp_path) == ["mine/data/ct.nii"]


def test_a_case_in_two_formats_is_listed_once_as_nifti(tmp_path: Path) -> None:
    touch(tmp_path / "a.mha", tmp_path / "a.nii.gz", tmp_path / "a.nrrd", tmp_path / "b.mha")
    dicom_folder(tmp_path / "a", "1.dcm")
    assert names(find_volumes([str(tmp_path)]), tmp_path) == ["a.nii.gz", "b.mha"]


def test_the_same_name_in_two_folders_is_two_cases(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "ct.nii", tmp_path / "y" / "ct.nii")
    assert len(find_volumes([str(tmp_path)])) == 2


def test_a_mask_that_the_shell_added_is_left_out(root: Path) -> None:
    words = [str(root / "case 9.nii"), str(root / "case 9_mask.nii.gz")]
    with pytest.raises(UserError, match=r"no volume in .*case 9_mask\.nii\.gz"):
        find_volumes(words[1:])
    assert find_volumes(words[:1]) == [root / "case 9.nii"]
    assert find_volumes(words) == [root / "case 9.nii"]


@pytest.mark.parametrize("word", ["empty", "nothing*", "notes.*"])
def test_nothing_found_says_where_and_what_is_known(root: Path, word: str) -> None:
    (root / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        find_volumes([str(root / "case 9.nii"), str(root / word)])
    message = str(caught.value)
    if word == "notes.*":
        word = "notes."
    assert word in message
    assert "NIfTI, NRRD, MetaImage" in message
    assert "a folder of DICOM, TIFF or picture slices" in message
    assert "\n" not in message


def test_large_stacks_behind_one_page_header_are_volumes_of_their_own(tmp_path: Path) -> None:
    for name in ("a1.tif", "a2.tif"):
        voxels = np.zeros((4, 8, 9), np.uint8)
        tifffile.imwrite(tmp_path / name, voxels, truncate=True, photometric="minisblack")
    assert names(find_volumes([str(tmp_path)]), tmp_path) == ["a1.tif", "a2.tif"]


def test_no_words() -> None:
    with pytest.raises(UserError, match="no volume was named"):
        find_volumes([])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("missing.nii", r"missing\.nii does not exist"),
        ("notes.txt", r"notes\.txt has an unknown format"),
        ("dicom/IM1", r"IM1 states no Columns, it is cut off or no image"),
    ],
)
def test_words_that_cannot_be_volumes(root: Path, word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_volumes([str(root / word)])


@pytest.mark.shared
def test_real_data(shared_data: Path) -> None:
    assert names(find_volumes([str(shared_data)]), shared_data) == [
        "clinical/LIDC-IDRI-0001_lungbox.nii.gz",
        "clinical/LIDC-IDRI-0002_lungbox.nii.gz",
        "clinical/LIDC-IDRI-0001_dicom_24slices",
        "micro/fly_150x256x256.tif",
        "micro/LHDL_3155_D_4_bc_tif",
    ]


def test_a_case_in_two_formats_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path / "a.nii", tmp_path / "a.mha", tmp_path / "b.mha")
    found = find_volumes([str(tmp_path), str(tmp_path / "b.mha")])
    assert names(found, tmp_path) == ["a.nii", "b.mha"]
    told = capsys.readouterr().out
    assert told == f"left out, the same case is there in another format: {tmp_path / 'a.mha'}\n"


def test_a_picture_or_two_beside_volumes_are_no_stack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "a.nii")
    for name in ("p1.tif", "p2.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((8, 9), np.uint8), photometric="minisblack")
    assert names(find_volumes([str(tmp_path)]), tmp_path) == ["a.nii"]
    assert "left out, single pictures beside volumes: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a_overview.tif", "z_overview.tif"])
def test_a_picture_beside_a_file_of_many_pages(tmp_path: Path, name: str) -> None:
    for one, shape in ((name, (8, 9)), ("scan.tif", (6, 8, 9))):
        tifffile.imwrite(tmp_path / one, np.zeros(shape, np.uint8), photometric="minisblack")
    assert names(find_volumes([str(tmp_path)]), tmp_path) == ["scan.tif"]
    touch(tmp_path / "ct.nii", tmp_path / "empty.tif")
    found = ["ct.nii", "empty.tif", "scan.tif"]
    assert names(find_volumes([str(tmp_path)]), tmp_path) == found


def test_a_mask_beside_two_slices_makes_them_no_pictures(tmp_path: Path) -> None:
    for name in ("s1.tif", "s2.tif", "s_mask.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((8, 9), np.uint8), photometric="minisblack")
    assert find_volumes([str(tmp_path)]) == [tmp_path]


def test_a_damaged_slice_leaves_a_stack_what_it_is(tmp_path: Path) -> None:
    stack_folder(tmp_path / "s")
    (tmp_path / "s" / "s1.tif").write_bytes(b"")
    assert find_volumes([str(tmp_path)]) == [tmp_path / "s"]


@pytest.mark.parametrize("word", ["", "  "])
def test_an_empty_word_is_not_the_folder_here(word: str) -> None:
    with pytest.raises(UserError, match="as by a variable that is not set"):
        find_volumes([word])


def test_a_pipe_is_no_volume(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(UserError, match="is neither a file nor a folder"):
        find_volumes([str(tmp_path / "a.nii")])


@pytest.mark.parametrize(
    ("modes", "told"),
    [
        (("RGB", "RGB", "RGB"), r"1\.png is in colour"),
        (("L", "L"), r"are no stack \(1\.png, 2\.png\): 3 slices are expected at least"),
    ],
)
def test_pictures_that_are_named_and_no_stack_say_why(
    tmp_path: Path, modes: tuple[str, ...], told: str
) -> None:
    for number, mode in enumerate(modes, 1):
        Image.new(mode, (9, 8)).save(tmp_path / f"{number}.png")
    (found,) = find_volumes([str(tmp_path)])
    with pytest.raises(UserError, match=told):
        read_volume(found, tmp_path / "cache")


def test_a_series_in_a_folder_named_as_a_mask_is_taken_where_it_is_named(tmp_path: Path) -> None:
    write_ct(tmp_path / "scans" / "patient_seg", chest())
    folder = tmp_path / "scans" / "patient_seg"
    assert find_volumes([str(folder)]) == [folder]
    write_ct(tmp_path / "scans" / "patient", chest())
    assert find_volumes([str(tmp_path / "scans")]) == [tmp_path / "scans" / "patient"]
