"""What the test methods take as input, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from option_helpers import evaluation_options
from training_helpers import write_case

import methods.inputs
from data.phantom.training_set import PhantomPaths
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, Domain, IntensityWindow
from methods.inputs import (
    check_window,
    input_paths,
    open_case,
    refuse_existing,
    refuse_own_inputs,
    result_folders,
)
from util.errors import UserError


@pytest.mark.parametrize("domain", ["clinical", "micro"])
def test_without_input_the_held_back_phantom_is_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    domain: Domain,
) -> None:
    held_back = {
        name: write_case(tmp_path / f"{name}_test", name, (8, 8, 1)).parent
        for name in ("clinical", "micro")
    }
    write_case(tmp_path / "trained_on", "seen", (8, 8, 1))

    def generate(folder: Path, scale: int, progress: Any) -> PhantomPaths:
        assert folder == Path("datasets/phantom/x4")
        seen = tmp_path / "trained_on"
        return PhantomPaths(folder, seen, seen, held_back["clinical"], held_back["micro"])

    monkeypatch.setattr(methods.inputs, "generate_phantom", generate)
    (path,) = input_paths(evaluation_options(), 4, domain)
    assert path == held_back[domain] / f"{domain}.nii.gz"
    assert "no --input given: using the phantom's held-back volume" in capsys.readouterr().out


def test_input_names_volumes(tmp_path: Path) -> None:
    first = write_case(tmp_path, "a", (8, 8, 1))
    second = write_case(tmp_path, "b", (8, 8, 1))
    options = evaluation_options("--input", str(tmp_path))
    assert input_paths(options, 2, "clinical") == [first, second]


def test_several_cases_get_a_folder_each() -> None:
    paths = [Path("x/a.nii"), Path("y/b.nii.gz")]
    assert result_folders(paths[:1], "out") == [Path("out")]
    assert result_folders(paths, "out") == [Path("out/a"), Path("out/b")]


def test_two_inputs_of_one_case_name_are_refused() -> None:
    paths = [Path("x/a.nii"), Path("y/b.nii"), Path("z/a.nii.gz")]
    message = r"z/a\.nii\.gz and x/a\.nii are both case a: rename one or run them apart"
    with pytest.raises(UserError, match=message):
        result_folders(paths, "out")


def test_results_are_not_replaced_without_a_word(tmp_path: Path) -> None:
    there, absent = tmp_path / "SR.nii.gz", tmp_path / "preview.png"
    refuse_existing([there, absent], overwrite=False)
    there.touch()
    with pytest.raises(UserError, match=r"SR\.nii\.gz exists already: --overwrite replaces it"):
        refuse_existing([absent, there], overwrite=False)
    refuse_existing([absent, there], overwrite=True)


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    scan = tmp_path / "clinical.nii.gz"
    scan.touch()
    other = tmp_path / "sub" / ".." / "clinical.nii.gz"
    (tmp_path / "sub").mkdir()
    for output in (scan, other):
        with pytest.raises(UserError, match="is an input of this run: give another --results_dir"):
            refuse_own_inputs([tmp_path / "SR.nii.gz", output], [scan], [str(scan)], "out")
    refuse_own_inputs([tmp_path / "SR.nii.gz"], [scan], [str(scan)], str(tmp_path))
    refuse_own_inputs([tmp_path / "SR.nii.gz"], [scan], None, str(tmp_path))


def test_results_must_not_become_inputs(tmp_path: Path) -> None:
    scans = [tmp_path / "in" / "a.nii", tmp_path / "in" / "b.nii"]
    (tmp_path / "in").mkdir()
    words = [str(tmp_path / "in")]
    for inside in ("in", "in/results"):
        with pytest.raises(UserError, match="lies in the input folder"):
            refuse_own_inputs([], scans, words, str(tmp_path / inside))
    refuse_own_inputs([], scans, words, str(tmp_path / "in_results"))


@pytest.mark.parametrize(("value", "lines"), [(0, 0), (20000, 1)])
def test_a_window_that_misses_the_volume_is_told(
    capsys: pytest.CaptureFixture[str], value: int, lines: int
) -> None:
    array = np.full((40, 5, 5), value, dtype=np.int16)
    array[:, 0, 0] = 0
    check_window(Volume(array, np.eye(4), "bone.nii"), CLINICAL_WINDOW)
    told = "96 % of bone.nii, whose values go from 0 to 20000, lie outside the intensity window"
    err = capsys.readouterr().err
    assert err.count("\n") == lines == err.count(told)


def test_a_window_that_leaves_nothing_of_the_volume_is_refused() -> None:
    """Its scores were infinite: both images were one constant."""
    fly = Volume(np.full((3, 5, 5), 200, dtype=np.uint8), np.eye(4), "fly.tif")
    with pytest.raises(UserError, match=r"100 % of fly.tif.*-1000 to 100: give --windows"):
        check_window(fly, IntensityWindow(-1000.0, 100.0))


@pytest.mark.parametrize("stated", [True, False])
def test_a_size_is_given_to_clinical_zarr_that_states_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stated: bool
) -> None:
    path = tmp_path / "ct.zarr"
    array: Any = zarr.open(str(path), mode="w", shape=(2, 8, 8), chunks=(2, 8, 8), dtype="i2")
    array[:] = 5
    if stated:
        array.attrs["spacing"] = [2.0, 0.5, 0.5]
    options = evaluation_options("--micro_spacing", "0.7", "--region", "all")
    volume, _ = open_case(path, options, "clinical")
    assert volume.spacing == pytest.approx((0.5, 0.5, 2.0) if stated else (0.7, 0.7, 0.7))
    assert ("--micro_spacing is not used: " in capsys.readouterr().err) == stated


def test_a_size_that_is_assumed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ct.tif"
    tifffile.imwrite(path, np.full((2, 8, 8), 5, np.int16), photometric="minisblack")
    volume, _ = open_case(path, evaluation_options("--region", "all"), "clinical")
    assert not volume.spacing_known
    assert "ct.tif states no voxel size (x, y and z): 1 x 1 x 1 mm is assumed" in (
        capsys.readouterr().err
    )
