"""Order of a stack's files by their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.formats.stack_order import order_by_number
from data.formats.tiff.reader import tiff_files
from util.errors import UserError


def ordered(*names: str) -> list[str]:
    files = [Path("stack") / name for name in names]
    return [path.name for path in order_by_number(files, Path("stack"))]


@pytest.mark.parametrize(
    "expected",
    [
        ["s8.tif", "s9.tif", "s10.tif", "s11.tif"],
        ["3155_D_4_bc_0000.tif", "3155_D_4_bc_0001.tif", "3155_D_4_bc_0002.tif"],
        ["a0.tif", "a5.tif", "a10.tif", "a15.tif"],
        ["rec 1 at 0.5mm.tif", "rec 2 at 1.0mm.tif", "rec 3 at 1.5mm.tif"],
        ["d20240101_t1.tif", "d20240103_t2.tif", "d20240109_t3.tif"],
        ["only.tif"],
        ["lung-0030.tif", "lung-0040.tif", "lung-0050.tif"],  # hyphens, not signs
        ["lung-1.tif", "lung-2.tif", "lung-3.tif"],
        ["z_-20.tif", "z_-10.tif", "z_0.tif", "z_10.tif"],
        ["-2.tif", "-1.tif", "0.tif"],
        ["s1_z5.tif", "s2_z6.tif", "s3_z7.tif"],
    ],
)
def test_natural_order(expected: list[str]) -> None:
    assert ordered(*reversed(expected)) == expected


@pytest.mark.parametrize("missing", range(1, 6))
def test_missing_number(missing: int) -> None:
    names = [f"r{number:03d}.tif" for number in range(7) if number != missing]
    expected = (
        rf"folder stack: slice number {missing} is missing between "
        rf"r{missing - 1:03d}\.tif and r{missing + 1:03d}\.tif"
    )
    with pytest.raises(UserError, match=expected):
        ordered(*names)


def test_missing_number_in_a_stack_with_a_step() -> None:
    with pytest.raises(UserError, match="slice number 20 is missing"):
        ordered("a0.tif", "a10.tif", "a30.tif", "a40.tif")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("left1.tif", "left2.tif", "right1.tif"), "names of different kinds"),
        (("a1_1.tif", "a1_2.tif", "a2_1.tif", "a2_2.tif"), "no number in the names"),
        (("a1.tif", "a01.tif"), "no number in the names"),
    ],
)
def test_names_that_give_no_order(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ordered(*names)


def test_two_numbers_that_give_two_orders_are_refused_with_both() -> None:
    expected = (
        r"two numbers in its names that give two orders: s1_z30\.tif, s2_z20\.tif, s3_z10\.tif or "
        r"s3_z10\.tif, s2_z20\.tif, s1_z30\.tif: leave one"
    )
    with pytest.raises(UserError, match=expected):
        ordered("s1_z30.tif", "s2_z20.tif", "s3_z10.tif")


def test_a_minus_that_may_be_a_sign_is_refused_with_both_orders() -> None:
    expected = (
        r"has a minus before the numbers in its names, which may be a sign: z-10\.tif, z-20\.tif, "
        r"\.\., z-40\.tif or z-40\.tif, z-30\.tif, \.\., z-10\.tif: number the slices from 0 on"
    )
    with pytest.raises(UserError, match=expected):
        ordered("z-40.tif", "z-30.tif", "z-20.tif", "z-10.tif")


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("s10.tif", "s9.TIFF", "s9_mask.tif", ".s8.tif", "log.txt"):
        (tmp_path / name).touch()
    (tmp_path / "sub.tif").mkdir()
    assert [path.name for path in tiff_files(tmp_path)] == ["s9.TIFF", "s10.tif"]


@pytest.mark.parametrize(
    "expected",
    [
        ["z_-0.4.tif", "z_-0.3.tif", "z_-0.2.tif", "z_-0.1.tif"],
        ["z_-1.5.tif", "z_-0.5.tif", "z_0.5.tif", "z_1.5.tif"],
        ["z0.5.tif", "z1.0.tif", "z1.5.tif", "z2.0.tif"],
        ["z_0.25.tif", "z_0.5.tif", "z_0.75.tif", "z_1.0.tif"],
        ["z_9.5.tif", "z_10.0.tif", "z_10.5.tif"],
        ["scan1.8.tif", "scan1.9.tif", "scan1.10.tif"],  # a counter behind one number
        # What is measured of each slice, beside its number.
        ["s_0_23.5C.tif", "s_1_23.9C.tif", "s_2_23.6C.tif", "s_3_23.7C.tif"],
        ["s_0000_t0.51.tif", "s_0001_t1.02.tif", "s_0002_t1.54.tif"],
        ["scan 9.58_001.tif", "scan 9.59_002.tif", "scan 10.00_003.tif"],
        ["s_0_z_-0.1.tif", "s_1_z_0.2.tif", "s_2_z_0.3.tif"],
        ["r_0000_z0.0.tif", "r_0001_z0.5.tif", "r_0002_z1.0.tif"],
    ],
)
def test_decimal_numbers(expected: list[str]) -> None:
    assert ordered(*reversed(expected)) == expected


@pytest.mark.parametrize("heights", [(1.5, 1.0, 0.5, 0.0), (0.5, 1.0, 0.0, 1.5)])
def test_a_decimal_number_that_gives_another_order_than_a_counter(heights: list[float]) -> None:
    names = [f"rec_{index:04d}_z{height}.tif" for index, height in enumerate(heights)]
    expected = r"two numbers in its names that give two orders: rec_0000_z.* or rec_000[23]_z0\.0"
    with pytest.raises(UserError, match=expected):
        ordered(*names)


def test_a_missing_decimal_number() -> None:
    with pytest.raises(UserError, match=r"a slice is missing between z1\.5\.tif and z2\.5\.tif"):
        ordered("z0.5.tif", "z1.0.tif", "z1.5.tif", "z2.5.tif")


def test_a_doubtful_minus_beside_a_decimal_number() -> None:
    with pytest.raises(UserError, match="which may be a sign"):
        ordered("z-30_23.5C.tif", "z-20_23.9C.tif", "z-10_23.6C.tif")


def test_numbers_with_leading_zeros_behind_a_minus_are_doubtful() -> None:
    with pytest.raises(UserError, match=r"which may be a sign: .* or .*: number the slices"):
        ordered("scan_-0001.tif", "scan_-0002.tif", "scan_-0003.tif")
