"""Memory maps: truncated files, places of views, pages given back."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from data.volumes.mapping import map_file, map_region, mapped_region, release_pages
from util.errors import UserError


def _resident_kilobytes(file: Path) -> int:
    """Memory of this process that a file's map takes, from the kernel's own account."""
    resident, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            resident += int(line.split()[1])
    return resident


def test_truncated_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.raw"
    file.write_bytes(bytes(99))
    with pytest.raises(UserError, match=r"scan is truncated: it holds 99 bytes.*promises 100"):
        map_file(file, np.dtype("<i2"), (2, 5, 5), 0, "scan")


def test_arrays_in_memory_have_no_region() -> None:
    assert mapped_region(np.zeros(3)) is None
    release_pages(np.zeros(3))


def test_region_of_a_view_of_a_view(tmp_path: Path) -> None:
    file = tmp_path / "a.raw"
    values = np.arange(5000 * 12, dtype="<i4").reshape(5000, 4, 3)
    file.write_bytes(b"12345" + values.tobytes())
    array = map_file(file, values.dtype, values.shape, 5, "scan")
    view = array[4000:][7:90, ::-1]
    region = mapped_region(view)
    assert region is not None
    np.testing.assert_array_equal(map_region(region), values[4007:4090, ::-1])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads Linux' memory account")
def test_released_pages_leave_memory_and_stay_readable(tmp_path: Path) -> None:
    file = tmp_path / "big.raw"
    values = np.random.default_rng(0).integers(0, 255, (16, 512, 512), np.uint8)
    file.write_bytes(values.tobytes())
    array = map_file(file, values.dtype, values.shape, 0, "scan")
    total = int(array.sum())
    assert _resident_kilobytes(file) > 3000
    for index in range(16):
        release_pages(array[index])
    assert _resident_kilobytes(file) < 300
    assert int(array.sum()) == total
    del array
    gc.collect()
