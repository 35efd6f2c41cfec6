from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from method_helpers import (
    SPACING,
    Forgetful,
    IdentityResolver,
    affines,
    as_resolver,
    block_means,
    corner_distance,
    quick_picture,
    read_nifti,
    soft_volume,
    stub_model,
    write_ct,
)
from option_helpers import evaluation_options
from writer_helpers import write_each_slice_at_once

import methods.inputs
import methods.super_resolution.method
from data.lung_mask import preview_slice
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW
from methods.super_resolution.companions import export_names
from methods.super_resolution.method import output_names, super_resolution
from methods.super_resolution.resuming import UpscaleSettings
from methods.super_resolution.volume_upscaling import upscale_volume
from util.errors import UserError
from util.images.pictures import comparison_picture
from util.images.resampling import enlarge
from util.interrupt import StopRequest

# Half a unit of the int16 file, and what float32 loses on the way to [-1, 1] and back.
ROUNDING = 0.51
AFFINES = affines()
SIZE = (14, 12, 3)
OUTPUTS = [*output_names(evaluation_options()), *export_names(evaluation_options())]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> IdentityResolver:
    """The stand-in that every run of this test uses in place of a trained network."""
    stub = IdentityResolver()
    monkeypatch.setattr(methods.inputs, "load_model", lambda o: stub_model(stub, o))
    # Drawing takes longer than all else; one test below draws.
    monkeypatch.setattr(methods.super_resolution.method, "comparison_picture", quick_picture)
    return stub


def run(tmp_path: Path, *words: str) -> Path:
    folder = tmp_path / "results"
    super_resolution(evaluation_options("--results_dir", str(folder), *words))
    return folder


@pytest.mark.parametrize("region", ["lung", "all"])
@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("scale", [2, 8])
def test_geometry_and_values_of_an_identity_enlargement(
    tmp_path: Path, resolver: IdentityResolver, name: str, region: str, scale: int
) -> None:
    resolver.scale = scale
    array = soft_volume(SIZE)
    path = write_ct(tmp_path / "ct.nii.gz", array, AFFINES[name])
    folder = run(tmp_path, "--input", str(path), "--region", region)
    enlarged, image = read_nifti(folder / "SR.nii.gz")
    copied, clinical = read_nifti(folder / "clinical.nii.gz")

    assert corner_distance(image, clinical) < 1e-3
    np.testing.assert_allclose(clinical.affine, AFFINES[name], atol=1e-4)
    zooms = (SPACING[0] / scale, SPACING[1] / scale, SPACING[2])
    np.testing.assert_allclose(image.header.get_zooms(), zooms, rtol=1e-5)
    for found in (image, clinical):
        assert found.get_data_dtype() == np.int16
        assert (found.dataobj.slope, found.dataobj.inter) == (1.0, 0.0)
        assert int(found.header["sform_code"]) == int(found.header["qform_code"]) == 1
    np.testing.assert_array_equal(copied, array)
    assert enlarged.shape == (SIZE[2], SIZE[1] * scale, SIZE[0] * scale)
    np.testing.assert_allclose(block_means(enlarged, scale), array, atol=ROUNDING)


def test_bone_and_metal_above_the_window_stay(tmp_path: Path, resolver: IdentityResolver) -> None:
    array = soft_volume(SIZE)
    array[:, 3:9, 3:9] = 1400
    array[:, 5:7, 5:7] = 3000
    path = write_ct(tmp_path / "ct.nii", array, AFFINES["lps"])
    enlarged, _ = read_nifti(run(tmp_path, "--input", str(path)) / "SR.nii.gz")
    for index, section in enumerate(array):
        cubic = enlarge(section.astype(np.float32), 2, order=3)
        outside = CLINICAL_WINDOW.outside(cubic)
        assert outside.sum() >= 100
        np.testing.assert_allclose(enlarged[index][outside], cubic[outside], atol=ROUNDING)
    assert enlarged[:, 11:13, 11:13].min() > 2500


def test_outside_the_lung_is_cubic_and_inside_is_the_network(
    tmp_path: Path, resolver: IdentityResolver, capsys: pytest.CaptureFixture[str]
) -> None:
    resolver.shift = 0.1  # 75 HU of the window's 1500
    array = soft_volume((20, 16, 2))
    mask = np.zeros_like(array)
    mask[:, :, 10:] = 1
    path = write_ct(tmp_path / "ct.nii", array, AFFINES["rotated"], mask)
    enlarged, _ = read_nifti(run(tmp_path, "--input", str(path)) / "SR.nii.gz")
    for index, section in enumerate(array):
        cubic = enlarge(section.astype(np.float32), 2, order=3)
        nearest = enlarge(section.astype(np.float32), 2, order=0)
        # The border of the mask is mixed over one input pixel: columns 19 and 20.
        np.testing.assert_allclose(enlarged[index, :, :19], cubic[:, :19], atol=ROUNDING)
        np.testing.assert_allclose(enlarged[index, :, 21:], nearest[:, 21:] + 75, atol=ROUNDING)
    # Which mask that was is said on the screen and in the record.
    words = str(tmp_path / "ct_mask.nii.gz")
    assert f"lung mask of ct: {words}\n" in capsys.readouterr().out
    record = json.loads((tmp_path / "results" / "run.json").read_text(encoding="utf-8"))
    assert record["lung_mask"] == words


def test_axes_that_are_not_at_right_angles(tmp_path: Path, resolver: IdentityResolver) -> None:
    sheared = AFFINES["lps"].copy()
    sheared[0, 1] += 0.1
    path = write_ct(tmp_path / "ct.nii", soft_volume(SIZE), sheared)
    with pytest.raises(UserError, match="do not stand at right angles, which no DICOM series can"):
        run(tmp_path, "--input", str(path), "--output_format", "dicom")
    assert not resolver.inputs
    written = nib.Nifti1Image.from_filename(run(tmp_path, "--input", str(path)) / "SR.nii.gz")
    # A qform cannot hold it, and says so; programs that look at it alone would see another place.
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (0, 1)
    np.testing.assert_allclose(written.affine[:3, :2] * 2, sheared[:3, :2], atol=1e-5)


def test_a_name_that_ends_as_a_mask_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'CT_mask\.nii', expected a name that does not end as"):
        run(tmp_path, "--input", "ct.nii", "--output_name", "CT_mask.nii")


def test_slices_without_lung_do_not_run_the_generator(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    array = soft_volume((14, 12, 5))
    mask = np.zeros_like(array)
    mask[1, 4:8, 4:8] = 1
    mask[3, 2, 2] = 1
    path = write_ct(tmp_path / "ct.nii", array, AFFINES["lps"], mask)
    enlarged, _ = read_nifti(run(tmp_path, "--input", str(path)) / "SR.nii.gz")
    assert len(resolver.inputs) == 2
    for call, index in enumerate((1, 3)):
        expected = CLINICAL_WINDOW.to_unit(array[index].astype(np.float32))
        np.testing.assert_array_equal(resolver.inputs[call], expected)
    for index in (0, 2, 4):
        cubic = enlarge(array[index].astype(np.float32), 2, order=3)
        np.testing.assert_allclose(enlarged[index], cubic, atol=ROUNDING)


@pytest.mark.parametrize(
    ("words", "scoped"),
    [((), True), (("--norm_scope", "slice"), False), (("--region", "all"), False)],
)
def test_the_generator_runs_once_a_slice_with_its_scope(
    tmp_path: Path, resolver: IdentityResolver, words: tuple[str, ...], scoped: bool
) -> None:
    array = soft_volume(SIZE)
    mask = np.zeros_like(array)
    mask[:, 2:9, 3:8] = 1
    path = write_ct(tmp_path / "ct.nii", array, AFFINES["lps"], mask)
    run(tmp_path, "--input", str(path), *words)
    # With no mask the preview's slice is enlarged twice more, to see how far to trust it; four by
    # five pixels of lung are too few.
    assert len(resolver.inputs) == SIZE[2] + (2 if "all" in words else 0)
    for index, scope in enumerate(resolver.scopes[: SIZE[2]]):
        if scoped:
            assert scope is not None
            np.testing.assert_array_equal(scope != 0, mask[index] != 0)
        else:
            assert scope is None


def test_slices_start_and_stop(tmp_path: Path, resolver: IdentityResolver) -> None:
    array = soft_volume((14, 12, 6))
    affine = AFFINES["rotated"]
    path = write_ct(tmp_path / "ct.nii", array, affine)
    folder = run(tmp_path, "--input", str(path), "--slices", "-4:-1")
    enlarged, image = read_nifti(folder / "SR.nii.gz")
    copied, clinical = read_nifti(folder / "clinical.nii.gz")
    np.testing.assert_array_equal(copied, array[2:5])
    np.testing.assert_allclose(block_means(enlarged, 2), array[2:5], atol=ROUNDING)
    np.testing.assert_allclose(clinical.affine[:3, 3], (affine @ (0, 0, 2, 1))[:3], atol=1e-4)
    assert corner_distance(image, clinical) < 1e-3


@pytest.mark.parametrize("size", [(14, 12, 1), (5, 33, 2), (1, 1, 2), (7, 3, 1)])
def test_any_size_is_taken(
    tmp_path: Path, resolver: IdentityResolver, size: tuple[int, int, int]
) -> None:
    array = soft_volume(size)
    path = write_ct(tmp_path / "ct.nii", array, AFFINES["anisotropic"])
    enlarged, _ = read_nifti(run(tmp_path, "--input", str(path)) / "SR.nii.gz")
    np.testing.assert_allclose(block_means(enlarged, 2), array, atol=ROUNDING)


def test_minmax_takes_each_volumes_own_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = IdentityResolver()
    model = stub_model(stub, evaluation_options())
    policy = replace(model.windows, normalization="minmax")
    monkeypatch.setattr(
        methods.inputs,
        "load_model",
        lambda options: replace(model, windows=policy),
    )
    monkeypatch.setattr(methods.super_resolution.method, "comparison_picture", quick_picture)
    array = soft_volume(SIZE)
    array[0, 0, 0], array[0, 0, 1] = -1024, 2500
    path = write_ct(tmp_path / "ct.nii", array, AFFINES["lps"])
    enlarged, _ = read_nifti(run(tmp_path, "--input", str(path), "--region", "all") / "SR.nii.gz")
    assert max(image.max() for image in stub.inputs) == 1.0
    assert min(image.min() for image in stub.inputs) == -1.0
    np.testing.assert_allclose(block_means(enlarged[1:], 2), array[1:], atol=ROUNDING)


def test_the_record_says_what_ran(
    tmp_path: Path, resolver: IdentityResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.super_resolution.method, "comparison_picture", comparison_picture)
    path = write_ct(tmp_path / "ct.nii", soft_volume(SIZE), AFFINES["lps"])
    folder = run(tmp_path, "--input", str(path))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["method"] == "smallpatchtest"
    assert record["input"] == str(path)
    assert record["outputs"] == [str(folder / name) for name in OUTPUTS]
    assert record["checkpoint"] == "stub.pt"
    assert record["checkpoint_step"] == 7
    assert record["window"] == {"low": -1000.0, "high": 500.0}
    assert record["scale"] == 2
    assert record["options"]["input"] == [str(path)]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*OUTPUTS, "run.json"])
    assert (folder / "preview.png").stat().st_size > 2000


# ---- several inputs, and results that are there ----


def test_several_inputs_go_to_folders_of_their_own(
    tmp_path: Path, resolver: IdentityResolver, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {name: soft_volume(SIZE, seed) for seed, name in enumerate(("left", "right"))}
    paths = [
        str(write_ct(tmp_path / f"{name}.nii.gz", array, AFFINES["lps"]))
        for name, array in arrays.items()
    ]
    folder = run(tmp_path, "--input", *paths)
    said = capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == ["left", "right"]
    for name, array in arrays.items():
        enlarged, _ = read_nifti(folder / name / "SR.nii.gz")
        np.testing.assert_allclose(block_means(enlarged, 2), array, atol=ROUNDING)
        assert (folder / name / "run.json").is_file()
        assert f"wrote {folder / name / 'SR.nii.gz'}" in said


def test_two_inputs_of_one_name_are_refused_before_any_work(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    paths = [
        str(write_ct(tmp_path / side / "ct.nii", soft_volume(SIZE), AFFINES["lps"]))
        for side in ("a", "b")
    ]
    with pytest.raises(UserError, match="are both case ct: rename one or run them apart"):
        run(tmp_path, "--input", *paths)
    assert resolver.inputs == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_existing_result_is_refused_before_any_work(
    tmp_path: Path, resolver: IdentityResolver, name: str
) -> None:
    path = write_ct(tmp_path / "ct.nii", soft_volume(SIZE), AFFINES["lps"])
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / name).write_bytes(b"old")
    with pytest.raises(UserError, match=f"{name} exists already: --overwrite replaces it"):
        run(tmp_path, "--input", str(path))
    assert resolver.inputs == []
    assert [p.name for p in folder.iterdir()] == [name]
    run(tmp_path, "--input", str(path), "--overwrite")
    assert (folder / name).read_bytes() != b"old"


def test_a_broken_run_leaves_nothing_that_looks_finished(
    tmp_path: Path, resolver: IdentityResolver, capsys: pytest.CaptureFixture[str]
) -> None:
    array = soft_volume((14, 12, 4))
    mask = np.ones_like(array)
    mask[1:, 0] = 0  # the first slice shows most lung, so its picture is due before the failure
    path = write_ct(tmp_path / "ct.nii", array, AFFINES["lps"], mask)
    resolver.fail_at = 2
    with pytest.raises(MemoryError):
        run(tmp_path, "--input", str(path))
    # What is left can be resumed by --resume, and is called what it is.
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == [
        f"{name}.nii.gz.partial{ending}"
        for name in ("SR", "clinical")
        for ending in ("", ".journal")
    ]
    resolver.fail_at = None
    capsys.readouterr()
    folder = run(tmp_path, "--input", str(path))  # and nothing is in the way of the next attempt
    assert "of an interrupted run is replaced: --resume keeps it" in capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == sorted([*OUTPUTS, "run.json"])


def test_an_input_among_the_outputs_is_refused(tmp_path: Path, resolver: IdentityResolver) -> None:
    path = write_ct(tmp_path / "results" / "clinical.nii.gz", soft_volume(SIZE), AFFINES["lps"])
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"clinical\.nii\.gz is an input of this run"):
        run(tmp_path, "--input", str(path), "--overwrite")
    assert path.read_bytes() == before
    assert resolver.inputs == []


def test_a_broken_run_keeps_the_results_it_was_to_replace(
    tmp_path: Path, resolver: IdentityResolver
) -> None:
    path = write_ct(tmp_path / "ct.nii", soft_volume(SIZE), AFFINES["lps"])
    folder = run(tmp_path, "--input", str(path))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    resolver.fail_at = len(resolver.inputs) + 1
    with pytest.raises(MemoryError):
        run(tmp_path, "--input", str(path), "--overwrite")
    after = {p.name: p.read_bytes() for p in folder.iterdir() if ".partial" not in p.name}
    assert after == before


# ---- memory, and the choice of the picture ----


def peak_memory(folder: Path, slices: int) -> int:
    """Peak of what Python and NumPy allocate while `slices` slices are enlarged, in bytes."""
    stored = np.zeros((slices, 48, 48), dtype=np.int16)
    volume = Volume(stored, np.diag([*SPACING, 1.0]), f"{slices}.nii")
    resolver = as_resolver(Forgetful(4))
    tracemalloc.start()
    try:
        settings = UpscaleSettings(overwrite=True)
        upscale_volume(volume, None, resolver, CLINICAL_WINDOW, folder, settings, {}, StopRequest())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_each_slice_at_once(monkeypatch)
    peak_memory(tmp_path, 3)  # fills the caches
    # 20 slices fill every stage of the pipeline; how many of its threads hold a slice at the same
    # moment is a matter of timing. 280 slices more, of which 1 kB stayed each, would be caught.
    few, many = peak_memory(tmp_path, 20), peak_memory(tmp_path, 300)
    one_slice = (4 * 48) ** 2 * 4
    assert many < few + 2 * one_slice


def test_the_picture_shows_the_slice_with_most_lung() -> None:
    volume = Volume(np.zeros((5, 4, 4), np.int16), np.eye(4), "ct.nii")
    assert preview_slice(volume, None) == 2
    mask = np.zeros((5, 4, 4), dtype=np.uint8)
    mask[3, :2] = 255
    mask[1, 0] = 1
    assert preview_slice(volume, mask) == 3


@pytest.mark.parametrize("name", [b"caf\xe9", b"$\\frac{$", b"two\nlines", b"_x^2$", b"n" * 220])
def test_no_name_costs_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    """Drawn, and on a page."""
    monkeypatch.setattr(methods.inputs, "load_model", lambda o: stub_model(IdentityResolver(), o))
    path = write_ct(tmp_path / f"{os.fsdecode(name)}.nii.gz", soft_volume(SIZE), AFFINES["rotated"])
    folder = tmp_path / os.fsdecode(name)
    words = ("--input", str(path), "--region", "all", "--page_mb", "1")
    super_resolution(evaluation_options("--results_dir", str(folder), *words))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["input"] == str(path)
    assert (folder / "preview.png").stat().st_size > 5_000
    assert "<h1>" in (folder / "index.html").read_text(encoding="utf-8")


def test_a_picture_that_cannot_be_drawn_costs_a_line(
    tmp_path: Path,
    resolver: IdentityResolver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*words: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr(methods.super_resolution.method, "comparison_picture", fail)
    path = write_ct(tmp_path / "ct.nii.gz", soft_volume(SIZE), AFFINES["rotated"])
    folder = run(tmp_path, "--input", str(path), "--region", "all")
    told = capsys.readouterr().err
    assert "no picture: ValueError('no font'), --debug shows where (the results are" in told
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["slices_resumed"] == 0
    assert (folder / "SR.nii.gz").is_file()
