"""scripts/phantom_dicom.py: a series like a scanner's, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.formats.dicom.slice_files import read_slice_headers
from data.formats.readers import read_volume
from data.writing.nifti_writer import write_volume
from scripts import phantom_dicom
from util.errors import UserError


@pytest.fixture(autouse=True)
def small_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Four slices in place of the phantom, which takes longer to make."""
    monkeypatch.setenv("SR_CYCLEGAN_CACHE", str(tmp_path / "cache"))
    array = np.random.default_rng(0).integers(-1000, 400, (4, 5, 6)).astype(np.int16)
    folder = tmp_path / "clinical_test"
    folder.mkdir()
    write_volume(folder / "phantom.nii.gz", array, np.diag([-0.7, -0.7, 2.0, 1.0]))
    phantom = SimpleNamespace(clinical_test=folder)
    monkeypatch.setattr(phantom_dicom, "generate_phantom", lambda *_: phantom)
    return array


def test_an_original_series_of_a_phantom(tmp_path: Path, small_phantom: np.ndarray) -> None:
    out = tmp_path / "new" / "series"
    phantom_dicom.main(["--out", str(out)])
    volume = read_volume(out)
    found = [volume.read_slice(index) for index in range(volume.num_slices)]
    np.testing.assert_array_equal(found, small_phantom)
    headers = read_slice_headers(out)
    assert {header.text("SeriesDescription") for header in headers} == {
        "digital lung phantom, no patient"
    }
    assert all(b"ORIGINAL\\PRIMARY\\AXIAL" in header.path.read_bytes() for header in headers)
    assert [path.name for path in out.parent.iterdir()] == ["series"]


def test_an_interrupted_series_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series = phantom_dicom.write_series

    def stopped(folder: Path, slices: Iterator[np.ndarray], *words: object) -> None:
        def first() -> Iterator[np.ndarray]:
            yield next(slices)
            assert len(list(folder.iterdir())) == 1
            raise KeyboardInterrupt

        write_series(folder, first(), *words)  # type: ignore[arg-type]

    monkeypatch.setattr(phantom_dicom, "write_series", stopped)
    with pytest.raises(KeyboardInterrupt):
        phantom_dicom.main(["--out", str(tmp_path / "series")])
    assert not list(tmp_path.glob("series*"))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_not_replaced(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "series"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
    with pytest.raises(UserError, match="series is there already: give the name of a new folder"):
        phantom_dicom.main(["--out", str(out)])
    assert out.exists()
